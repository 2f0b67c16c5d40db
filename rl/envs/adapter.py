"""What every adapter has in common: the order of calls, checks of seeds and actions, and where episodes begin.

Kept in one place because the C++ libraries check nothing: ale-py's vector environment kills the process on an action
out of range, and answers a `recv` without `send` by waiting for ever.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from plasticity.errors import UserError
from rl.envs.base import EnvSpec, Row

SEED_LIMIT = 2**31
"""Seeds are in [0, 2^31): both Atari libraries take int32, and to ale-py a negative one means "keep the old"."""


class Adapter:
    """A `VecEnv` without the environments. A subclass gives `_restart`, `_send`, `_recv` and `_close`.

    `_recv` returns frame, reward, over, truncated and lives as the library has them; `first` is added here. It may
    mark a row both over and truncated: over wins, because then there is nothing to bootstrap from.
    """

    def __init__(self, spec: EnvSpec, envs: int) -> None:
        if envs < 1:
            raise UserError(f"number of environments must be >= 1, got {envs}")
        self.spec = spec
        self.envs = envs
        self._ended: np.ndarray | None = None  # bool [envs]: the next row is a reset row; None before the first restart
        self._waiting = False  # actions were sent, their row is not yet received
        self._closed = False

    def restart(self, seeds: Sequence[int]) -> Row:
        """Fresh episodes, `first` true everywhere. seeds: `envs` integers in [0, 2^31).

        A row that was sent for and not yet received is dropped.
        """
        self._check_open()
        wanted = [int(seed) for seed in seeds]
        if len(wanted) != self.envs:
            raise ValueError(f"need one seed for each of {self.envs} environments, got {len(wanted)}")
        if not all(0 <= seed < SEED_LIMIT for seed in wanted):
            raise UserError(f"environment seeds must be in [0, 2^31), got {wanted}")
        if self._waiting:
            self._recv()
            self._waiting = False
        frame, lives = self._restart(wanted)
        self._ended = np.zeros(self.envs, bool)
        no = np.zeros(self.envs, bool)
        return Row(frame, np.zeros(self.envs, np.float32), no, no.copy(), np.array(lives, np.int32), ~no)

    def send(self, actions: np.ndarray) -> None:
        """Take integer actions `[envs]` in [0, spec.actions); those of environments that await a reset may be any."""
        self._check_open()
        if self._ended is None:
            raise RuntimeError("send before the first restart")
        if self._waiting:
            raise RuntimeError("send twice without recv")
        actions = np.asarray(actions)
        if actions.shape != (self.envs,) or not np.issubdtype(actions.dtype, np.integer):
            raise ValueError(f"actions must be integers [{self.envs}], got {actions.dtype} {list(actions.shape)}")
        actions = np.where(self._ended, 0, actions).astype(np.int32)  # always a copy: the caller may reuse its own
        if (actions < 0).any() or (actions >= self.spec.actions).any():
            raise ValueError(f"actions must be in [0, {self.spec.actions}), got {actions.tolist()}")
        self._send(actions)
        self._waiting = True

    def recv(self) -> Row:
        """The row that the actions led to."""
        self._check_open()
        if not self._waiting or self._ended is None:
            raise RuntimeError("recv without send")
        frame, reward, over, truncated, lives = self._recv()
        over = np.array(over, bool)
        truncated = np.array(truncated, bool) & ~over
        first, self._ended = self._ended, over | truncated
        self._waiting = False
        return Row(frame, np.array(reward, np.float32), over, truncated, np.array(lives, np.int32), first)

    def close(self) -> None:
        """Free threads and memory; a second call does nothing."""
        if self._closed:
            return
        if self._waiting:
            self._recv()
        self._closed = True
        self._close()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the environments are closed")

    def _restart(self, seeds: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Frame and lives of fresh episodes."""
        raise NotImplementedError

    def _send(self, actions: np.ndarray) -> None:
        raise NotImplementedError

    def _recv(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Frame, reward, over, truncated, lives."""
        raise NotImplementedError

    def _close(self) -> None:
        """Drop what holds threads or memory."""


def default_threads(envs: int, threads: int) -> int:
    """`threads`, or for 0 one for each environment up to the CPUs that this process may use."""
    if threads < 0:
        raise UserError(f"threads must be >= 0 (0: as many as CPUs), got {threads}")
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return threads or min(envs, cpus)
