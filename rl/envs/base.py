"""The environment contract: raw signals of many environments at once, and nothing that belongs to the agent.

An adapter takes actions and gives rows. It does not clip rewards, stack frames or treat a lost life as an end: those
are the agent's (`rl.protocols`), computed on the device, because the libraries' own options disagree with each other
and with the literature.

Every adapter has *next-step* autoreset. After a row with `over` or `truncated`, whose frame is the last of its
episode, the next row is the reset row: `first` is true, its frame begins an episode, its reward is 0, and the action
sent before it was ignored. So the last frame is never lost, and truncation can bootstrap from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np


class Row(NamedTuple):
    """What all environments return for one action each. All arrays are `[envs, ...]` and the receiver's own.

    frame: `[envs, *EnvSpec.shape]`, the newest frame only; uint8 holds grey levels, 0 to 255.
    reward: float32, unclipped, of the action before.
    over: the game ended with this frame. truncated: the episode was cut off with this frame.
    lives: int32 lives left, 0 in a game without lives. first: this frame begins an episode.
    """

    frame: np.ndarray
    reward: np.ndarray
    over: np.ndarray
    truncated: np.ndarray
    lives: np.ndarray
    first: np.ndarray


@dataclass(frozen=True)
class EnvSpec:
    """shape, dtype (`uint8` or `float32`): of one frame, channels last. actions: number of actions.

    frames_per_step: emulator frames that one agent step takes (4 in Atari games, 1 elsewhere).
    """

    shape: tuple[int, ...]
    dtype: str
    actions: int
    frames_per_step: int = 1


class VecEnv(Protocol):
    """Environments that step together. `send` may return before they have; `recv` waits for them."""

    spec: EnvSpec
    envs: int

    def restart(self, seeds: Sequence[int]) -> Row:
        """Fresh episodes in all environments, one seed each; what follows depends on seeds and actions only.

        The row has `first` true everywhere. May be called at any time, also in the middle of an episode.
        """
        ...

    def send(self, actions: np.ndarray) -> None:
        """Take int32 actions `[envs]`; those of environments that await a reset are ignored."""
        ...

    def recv(self) -> Row:
        """The row that the actions led to."""
        ...

    def close(self) -> None:
        """Free threads and memory."""
        ...
