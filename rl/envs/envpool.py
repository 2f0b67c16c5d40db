"""Atari games by envpool: the second backend, for comparison or where it is installed already (740 MB).

Same rows as `rl.envs.ale` in meaning, never in pixels: the emulator is another version, and so are the resets. What
differs, and what is done about it:
* seeds are fixed when a pool is made, so `restart` makes a new pool (tens of milliseconds) with one seed for each
  environment;
* the episode limit is in agent steps: ceil(episode_frames / 4), the same row as in ale-py;
* `noop_max=n` means 1 to n no-op frames and 0 crashes the process, so an episode begins with one no-op frame where the
  protocol asks for none;
* an episode that ends by itself in its last allowed step is reported as truncated: `info["terminated"]` says that the
  game is over, and over wins.

Weng et al. 2022, arXiv:2206.10558.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

import numpy as np

from plasticity.errors import UserError
from rl.envs import ale
from rl.envs.adapter import Adapter, default_threads
from rl.protocols import ProtocolConfig

KNOWN = ("1.2.5", "1.2.7")
"""Versions that the adapter was tested with; 1.2.5 is the last for Python 3.11, 1.2.7 needs 3.12 or newer."""

_INSTALL = "pip install 'envpool==1.2.5' (Python 3.11) or 'envpool==1.2.7' (3.12 and newer); or use backend 'ale'"


def check_installed() -> None:
    """Raise UserError where envpool is absent or of a version that the adapter was not tested with; imports nothing."""
    try:
        version = importlib.metadata.version("envpool")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"backend 'envpool' is not installed: {_INSTALL}") from None
    if version not in KNOWN:
        raise UserError(f"envpool {version} is not known to work here ({', '.join(KNOWN)} are): {_INSTALL}")


class EnvpoolEnv(Adapter):
    """`envs` copies of one Atari game, emulated by `threads` C++ threads (0: one for each CPU, at most `envs`)."""

    def __init__(self, rom: str, envs: int, protocol: ProtocolConfig, threads: int = 0) -> None:
        check_installed()
        super().__init__(ale.spec(rom, protocol), envs)
        self._task = "".join(word.capitalize() for word in rom.split("_")) + "-v5"
        self._options = {
            "num_envs": envs,
            "num_threads": default_threads(envs, threads),
            "max_episode_steps": -(-protocol.episode_frames // ale.FRAMES_PER_STEP),
            "repeat_action_probability": protocol.sticky,
            "full_action_space": protocol.full_actions,
            "noop_max": max(1, protocol.noop_max),
            "frame_skip": ale.FRAMES_PER_STEP,
            "stack_num": 1,
            "reward_clip": False,
            "episodic_life": False,
            "use_fire_reset": False,
        }
        self._pool: Any = None

    def _restart(self, seeds: list[int]) -> tuple[np.ndarray, np.ndarray]:
        import envpool  # pyrefly: ignore[missing-import]  # takes seconds, so not before it is needed

        self._pool = None  # the old threads go before the new ones come
        self._pool = envpool.make_gymnasium(self._task, seed=seeds, **self._options)
        if self._pool.action_space.n != self.spec.actions:
            raise UserError(f"envpool has {self._pool.action_space.n} actions in {self._task}, not {self.spec.actions}")
        frame, info = self._pool.reset()
        return frame.reshape(self.envs, *ale.SHAPE), info["lives"]

    def _send(self, actions: np.ndarray) -> None:
        self._pool.send(actions)

    def _recv(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        frame, reward, ended, truncated, info = self._pool.recv()
        return frame.reshape(self.envs, *ale.SHAPE), reward, info["terminated"], ended | truncated, info["lives"]

    def _close(self) -> None:
        self._pool = None
