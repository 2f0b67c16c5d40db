"""From the name of a game and a protocol to environments: `make`, and `actions_of` for what a network must know first.

Games of a sequence can share one network if they share the number of actions: 18 in all Atari games and 6 in all
MinAtar games when the full action set is asked for, by the protocol or by `sequence_actions=True`.
"""

from __future__ import annotations

import dataclasses

from plasticity.errors import UserError, unknown
from rl.envs import ale, envpool, minatar
from rl.envs.base import EnvSpec, VecEnv
from rl.envs.fake import FakeGame
from rl.envs.games import Game, get
from rl.envs.probes import PROBES
from rl.envs.stepped import PythonGame, SteppedEnv
from rl.protocols import ProtocolConfig

BACKENDS = {"ale": ale.AleEnv, "envpool": envpool.EnvpoolEnv}
"""Emulators of the Atari games; the other suites have one implementation each."""


def make(
    game: str | Game,
    envs: int,
    protocol: ProtocolConfig,
    *,
    backend: str = "ale",
    threads: int = 0,
    sequence_actions: bool | None = None,
) -> VecEnv:
    """`envs` environments of one game; the first row comes from `restart(seeds)`.

    backend, threads (0: one for each CPU, at most `envs`): of Atari games; the others run in the calling thread.
    sequence_actions: overrides the protocol's `full_actions`, so that all games of a sequence have the same actions.
    Raises UserError, before any environment exists, for an unknown game or backend, a missing package or ROM, and
    numbers out of range.
    """
    game, protocol = _resolve(game, protocol, sequence_actions)
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    if envs < 1:
        raise UserError(f"number of environments must be >= 1, got {envs}")
    if threads < 0:
        raise UserError(f"threads must be >= 0 (0: as many as CPUs), got {threads}")
    if game.suite == "atari":
        return BACKENDS[backend](game.name, envs, protocol, threads)
    own = PROBES[game.name].limit if game.suite == "probe" else None
    limit = min(protocol.episode_frames, own or protocol.episode_frames)
    return SteppedEnv(lambda: _python_game(game, protocol), envs, limit)


def spec_of(game: str | Game, protocol: ProtocolConfig, *, sequence_actions: bool | None = None) -> EnvSpec:
    """What `make` would give as its `spec`; no threads are started, a ROM is read at most."""
    game, protocol = _resolve(game, protocol, sequence_actions)
    return ale.spec(game.name, protocol) if game.suite == "atari" else _python_game(game, protocol).spec


def actions_of(game: str | Game, protocol: ProtocolConfig, *, sequence_actions: bool | None = None) -> int:
    """How many actions `make` would give the game; cheap, as `spec_of`."""
    return spec_of(game, protocol, sequence_actions=sequence_actions).actions


def _resolve(game: str | Game, protocol: ProtocolConfig, sequence_actions: bool | None) -> tuple[Game, ProtocolConfig]:
    if sequence_actions is not None:
        protocol = dataclasses.replace(protocol, full_actions=sequence_actions)  # pyrefly: ignore
    return get(game) if isinstance(game, str) else game, protocol


def _python_game(game: Game, protocol: ProtocolConfig) -> PythonGame:
    if game.suite == "minatar":
        return minatar.MinAtarGame(game.name.removeprefix("minatar_"), protocol)
    return FakeGame() if game.suite == "fake" else PROBES[game.name]()
