"""A deterministic game whose every row can be worked out by hand, for tests of agents, replay and the loop.

An episode counts its steps t = 1 ... `steps`; t = 0 is the reset row.
* frame: every entry is `16 * ((seed + episode) % 16) + t % 16`, with episode = 0 for the first after a restart, so that
  a frame tells which episode and step it belongs to;
* reward of step t: +t if the action was `t % actions`, else -1, so that clipping shows and there is something to learn;
* lives: `steps / life_steps` at the start, one less at each multiple of `life_steps`; the last is lost with the game;
* over at t = `steps`. Truncation is the protocol's, at t = `episode_frames` if that comes first.
"""

from __future__ import annotations

import numpy as np

from plasticity.errors import UserError
from rl.envs.base import EnvSpec


class FakeGame:
    """shape: of a frame, uint8. actions: how many. steps: length of an episode. life_steps: how long a life lasts.

    Sticky actions, no-ops and the action set of the protocol mean nothing here: the rows would not be known.
    """

    def __init__(
        self, shape: tuple[int, ...] = (84, 84, 1), actions: int = 4, steps: int = 12, life_steps: int = 4
    ) -> None:
        if not 1 <= life_steps <= steps or steps % life_steps:
            raise UserError(f"steps must be a multiple of life_steps, got {steps} and {life_steps}")
        self.spec = EnvSpec(shape, "uint8", actions)
        self._steps, self._life_steps = steps, life_steps
        self._episode, self._t = 0, 0

    def seed(self, seed: int) -> None:
        """The number of the first episode."""
        self._episode = seed - 1

    def reset(self) -> tuple[np.ndarray, int]:
        """Frame of t = 0, all lives."""
        self._episode += 1
        self._t = 0
        return self._frame(), self._lives()

    def step(self, action: int) -> tuple[np.ndarray, float, bool, int]:
        """Frame, reward, over, lives."""
        self._t += 1
        reward = self._t if action == self._t % self.spec.actions else -1
        return self._frame(), float(reward), self._t == self._steps, self._lives()

    def _frame(self) -> np.ndarray:
        return np.full(self.spec.shape, 16 * (self._episode % 16) + self._t % 16, np.uint8)

    def _lives(self) -> int:
        return (self._steps - self._t) // self._life_steps + bool((self._steps - self._t) % self._life_steps)
