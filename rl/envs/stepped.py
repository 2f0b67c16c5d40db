"""Games written in Python, many at a time: next-step autoreset and the episode limit in one place.

Small games (MinAtar, the probes, the fake) have no threads: `send` keeps the actions and `recv` steps, so that work
given to an accelerator between the two still overlaps with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from rl.envs.adapter import Adapter
from rl.envs.base import EnvSpec


class PythonGame(Protocol):
    """One game. `seed` makes everything after it a function of the seed and the actions; `reset` comes next."""

    spec: EnvSpec

    def seed(self, seed: int) -> None:
        """Forget all history."""
        ...

    def reset(self) -> tuple[np.ndarray, int]:
        """Begin an episode: frame of `spec.shape`, lives."""
        ...

    def step(self, action: int) -> tuple[np.ndarray, float, bool, int]:
        """frame, reward, over, lives."""
        ...


class SteppedEnv(Adapter):
    """`envs` copies of a game; an episode is truncated after `limit` steps."""

    def __init__(self, make: Callable[[], PythonGame], envs: int, limit: int) -> None:
        games = [make() for _ in range(envs)]
        super().__init__(games[0].spec if games else EnvSpec((), "uint8", 1), envs)
        self._games = games
        self._limit = limit
        self._steps = np.zeros(envs, np.int64)
        self._over = np.zeros(envs, bool)
        self._actions = np.zeros(envs, np.int32)

    def _restart(self, seeds: list[int]) -> tuple[np.ndarray, np.ndarray]:
        frame, lives = self._empty()
        for i, (game, seed) in enumerate(zip(self._games, seeds, strict=True)):
            game.seed(seed)
            frame[i], lives[i] = game.reset()
        self._steps[:] = 0
        self._over[:] = False
        return frame, lives

    def _send(self, actions: np.ndarray) -> None:
        self._actions = actions

    def _recv(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        frame, lives = self._empty()
        reward = np.zeros(self.envs, np.float32)
        reset = self._over | (self._steps >= self._limit)
        over = np.zeros(self.envs, bool)
        for i, game in enumerate(self._games):
            if reset[i]:
                frame[i], lives[i] = game.reset()
            else:
                frame[i], reward[i], over[i], lives[i] = game.step(int(self._actions[i]))
        self._steps = np.where(reset, 0, self._steps + 1)
        self._over = over
        return frame, reward, over, self._steps >= self._limit, lives

    def _close(self) -> None:
        self._games = []

    def _empty(self) -> tuple[np.ndarray, np.ndarray]:
        return np.empty((self.envs, *self.spec.shape), self.spec.dtype), np.zeros(self.envs, np.int32)
