"""Frames a second through the suite's environments, against the library underneath with the same options.

Random actions, `send` and `recv` in turns; both lie in one process and are timed in turns. Emulator frames: 4 an agent
step in Atari games, 1 in MinAtar.   python -m benchmarks.rl_envs [pairs]
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from benchmarks.common import machine, pairs, report, save
from rl import envs
from rl.envs.adapter import default_threads
from rl.protocols import protocols

GAME, SMALL = "pong", "minatar_breakout"
NUMBERS = (1, 8, 32)


def actions(envs: int, kinds: int, steps: int) -> np.ndarray:
    """Random actions, drawn before the clock starts."""
    return np.random.default_rng(0).integers(0, kinds, (steps, envs)).astype(np.int32)


def adapter(name: str, protocol: str, number: int, steps: int) -> Callable[[], None]:
    """Steps through the suite's environments."""
    env = envs.make(name, number, protocols.get(protocol)())
    chosen = actions(number, env.spec.actions, steps)
    env.restart(range(number))

    def run() -> None:
        for row in chosen:
            env.send(row)
            env.recv()

    return run


def raw_atari(name: str, number: int, steps: int) -> Callable[[], None]:
    """Steps through ale-py's vector environment, as protocol `nature` presents a game."""
    from ale_py.vector_env import AtariVectorEnv

    env = AtariVectorEnv(
        name,
        num_envs=number,
        num_threads=default_threads(number, 0),
        max_num_frames_per_episode=10**9,
        repeat_action_probability=0.0,
        full_action_space=False,
        noop_max=31,
        stack_num=1,
        reward_clipping=False,
        use_fire_reset=False,
    )
    chosen = actions(number, int(env.single_action_space.n), steps)
    env.reset(seed=np.arange(number, dtype=np.int32))

    def run() -> None:
        for row in chosen:
            env.send(row)
            env.recv()

    return run


def raw_minatar(name: str, number: int, steps: int) -> Callable[[], None]:
    """Steps through the package's own environments one after the other, its states kept as they come."""
    from minatar.environment import Environment

    games = [Environment(name.removeprefix("minatar_"), sticky_action_prob=0.1) for _ in range(number)]
    for seed, game in enumerate(games):
        game.seed(seed)
    minimal = games[0].minimal_action_set()
    chosen = actions(number, len(minimal), steps)

    def run() -> None:
        for row in chosen:
            for game, action in zip(games, row, strict=True):
                _, over = game.act(minimal[action])
                if over:
                    game.reset()
                game.state()

    return run


def main(count: int = 15) -> None:
    origin, rows = machine(), []
    for name in (GAME, SMALL):
        atari = name == GAME
        for number in NUMBERS:
            steps = max(1, (3_000 if atari else 60_000) // (number + 3))
            ours = adapter(name, "nature" if atari else "minatar", number, steps)
            raw = (raw_atari if atari else raw_minatar)(name, number, steps)
            ours(), raw()
            timed = pairs(raw, ours, count)
            frames = steps * number * (4 if atari else 1)
            rows.append(
                {
                    "game": name,
                    "environments": number,
                    "suite, frames/s": frames / timed.b,
                    "library, frames/s": frames / timed.a,
                    "suite / library": timed.ratio,
                    "lowest": timed.low,
                    "highest": timed.high,
                }
            )
            print(rows[-1], flush=True)
            save("rl_envs", origin, rows)
    report("rl_envs", origin, rows)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
