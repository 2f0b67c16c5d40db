"""Probe environments: one ability each, and the value that an agent with that ability must find, known exactly.

An agent that learns Atari badly may have any of ten faults; one that fails a probe has the fault that the probe is
for. Observations are float32 `[1]`, there are two actions, and a minute of CPU is plenty.

| probe | what the agent must be able to do |
| --- | --- |
| `probe_value` | learn a constant |
| `probe_observation` | tell observations apart |
| `probe_discount` | bootstrap, with the right discount |
| `probe_action` | prefer the better action |
| `probe_action_observation` | both at once |
| `probe_truncation` | bootstrap where an episode is cut off, and from its last frame rather than the next one's first |
| `probe_life` | treat a lost life as the protocol says |

After Jones 2021, "Debugging reinforcement learning systems" (andyljones.com), and the probes in rejax (Liesen et al.).
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np

from plasticity.errors import unknown
from rl.envs.base import EnvSpec

SPEC = EnvSpec((1,), "float32", 2)

Values = dict[tuple[float, ...], tuple[float, ...]]
"""Observation -> the value of each action there, of the optimal policy."""


class Probe(Protocol):
    """A `rl.envs.stepped.PythonGame` with a limit of its own (steps; None: none) and known values."""

    limit: ClassVar[int | None]
    spec: EnvSpec

    def seed(self, seed: int) -> None: ...
    def reset(self) -> tuple[np.ndarray, int]: ...
    def step(self, action: int) -> tuple[np.ndarray, float, bool, int]: ...

    @staticmethod
    def expected(gamma: float, life_loss: str) -> Values: ...


class _Base:
    """No randomness used, no lives, no limit: what most probes are."""

    limit: ClassVar[int | None] = None
    spec = SPEC

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._seen = 0.0

    def seed(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def _show(self, value: float) -> np.ndarray:
        self._seen = value
        return np.array([value], np.float32)


class ValueProbe(_Base):
    """One step, observation 0, reward 1: Q = 1."""

    def reset(self) -> tuple[np.ndarray, int]:
        return self._show(0.0), 0

    def step(self, action: int) -> tuple[np.ndarray, float, bool, int]:
        return self._show(0.0), 1.0, True, 0

    @staticmethod
    def expected(gamma: float, life_loss: str) -> Values:
        return {(0.0,): (1.0, 1.0)}


class ObservationProbe(_Base):
    """One step; the observation is -1 or 1 by chance and the reward is the observation: Q(s, a) = s."""

    def reset(self) -> tuple[np.ndarray, int]:
        return self._show(float(self._random.choice((-1, 1)))), 0

    def step(self, action: int) -> tuple[np.ndarray, float, bool, int]:
        reward = self._seen
        return self._show(reward), reward, True, 0

    @staticmethod
    def expected(gamma: float, life_loss: str) -> Values:
        return {(-1.0,): (-1.0, -1.0), (1.0,): (1.0, 1.0)}


class DiscountProbe(_Base):
    """Two steps, observations 0 and 1, reward 1 for the second: Q(0) = gamma, Q(1) = 1."""

    def reset(self) -> tuple[np.ndarray, int]:
        return self._show(0.0), 0

    def step(self, action: int) -> tuple[np.ndarray, float, bool, int]:
        last = self._seen == 1.0
        return self._show(1.0), float(last), last, 0

    @staticmethod
    def expected(gamma: float, life_loss: str) -> Values:
        return {(0.0,): (gamma, gamma), (1.0,): (1.0, 1.0)}


class ActionProbe(_Base):
    """One step, observation 0; action 1 is paid 1 and action 0 costs 1."""

    def reset(self) -> tuple[np.ndarray, int]:
        return self._show(0.0), 0

    def step(self, action: int) -> tuple[np.ndarray, float, bool, int]:
        return self._show(0.0), 1.0 if action == 1 else -1.0, True, 0

    @staticmethod
    def expected(gamma: float, life_loss: str) -> Values:
        return {(0.0,): (-1.0, 1.0)}


class ActionObservationProbe(_Base):
    """One step, observation -1 or 1 by chance; the right action (0 for -1, 1 for 1) is paid 1, the other costs 1."""

    def reset(self) -> tuple[np.ndarray, int]:
        return self._show(float(self._random.choice((-1, 1)))), 0

    def step(self, action: int) -> tuple[np.ndarray, float, bool, int]:
        right = (self._seen == 1.0) == (action == 1)
        return self._show(self._seen), 1.0 if right else -1.0, True, 0

    @staticmethod
    def expected(gamma: float, life_loss: str) -> Values:
        return {(-1.0,): (1.0, -1.0), (1.0,): (-1.0, 1.0)}


class TruncationProbe(_Base):
    """Observation 0, then 1 for ever; each step from 1 is paid 1, that from 0 nothing. Cut off after 3 steps.

    Q(1) = 1 / (1 - gamma) and Q(0) = gamma / (1 - gamma). Half of the steps from 1 are cut off, so that a wrong target
    there shows: Q(1) = 1 / (1 - gamma / 2) < 2 if truncation ends the bootstrap, and
    1 / (1 - gamma (1 + gamma) / 2) if the next episode's first frame is taken for the last one's.
    """

    limit: ClassVar[int | None] = 3

    def reset(self) -> tuple[np.ndarray, int]:
        return self._show(0.0), 0

    def step(self, action: int) -> tuple[np.ndarray, float, bool, int]:
        reward = self._seen
        return self._show(1.0), reward, False, 0

    @staticmethod
    def expected(gamma: float, life_loss: str) -> Values:
        rest = 1.0 / (1.0 - gamma)
        return {(0.0,): (gamma * rest, gamma * rest), (1.0,): (rest, rest)}


class LifeProbe(_Base):
    """Two steps of reward 1, observations 0 and 1; the first costs one of two lives, the second ends the game.

    Q(1) = 1; Q(0) = 1 + gamma where lives mean nothing to the agent (`off`), and 1 where losing one ends the bootstrap.
    """

    def reset(self) -> tuple[np.ndarray, int]:
        return self._show(0.0), 2

    def step(self, action: int) -> tuple[np.ndarray, float, bool, int]:
        last = self._seen == 1.0
        return self._show(1.0), 1.0, last, 0 if last else 1

    @staticmethod
    def expected(gamma: float, life_loss: str) -> Values:
        first = 1.0 + gamma if life_loss == "off" else 1.0
        return {(0.0,): (first, first), (1.0,): (1.0, 1.0)}


PROBES: dict[str, type[Probe]] = {
    "probe_value": ValueProbe,
    "probe_observation": ObservationProbe,
    "probe_discount": DiscountProbe,
    "probe_action": ActionProbe,
    "probe_action_observation": ActionObservationProbe,
    "probe_truncation": TruncationProbe,
    "probe_life": LifeProbe,
}
"""All probes by the name of their game."""


def expected(name: str, gamma: float, life_loss: str = "off") -> Values:
    """Optimal Q-values of a probe: observation -> value of each action, undiscounted reward units.

    gamma: discount in [0, 1); life_loss: that of the protocol. Raises UserError for an unknown probe.
    """
    if name not in PROBES:
        raise unknown("probe", name, PROBES)
    return PROBES[name].expected(gamma, life_loss)
