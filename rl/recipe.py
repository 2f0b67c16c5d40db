"""From what a user says to runs: lengths and rhythms that are not given are chosen by the kind of game."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from plasticity.errors import UserError
from rl import envs as environments
from rl import schedule as schedules
from rl.measure import Measure
from rl.run import ARROW, Run
from rl.schedule import Schedule

#: Frames of a run where the user does not say: the literature's, and a minute or two of a small game.
FRAMES = {"atari": 200_000_000}
SMALL_FRAMES = 100_000


def runs_of(
    game: str,
    agent: str = "rainbow",
    mitigations: Iterable[str] = ("none",),
    seeds: Iterable[int] = (0,),
    protocol: str = "",
    network: str = "",
    optimizer: str = "",
    frames: int = 0,
    iteration_frames: int = 0,
    checkpoint_iterations: int = 0,
    envs: int = 8,
    measure_updates: int = -1,
    **rest: Any,
) -> list[Run]:
    """One run for each combination of mitigations and each seed. 0, and -1 for `measure_updates`, mean "choose".

    rest: fields of `Schedule` and `Measure` (`switch_iterations`, `event_updates`, `reference`, ...). Raises
    `UserError` for anything that makes no possible run.
    """
    seeds, mitigations = list(seeds), list(mitigations)
    if not seeds:
        raise UserError("seeds must be >= 1, got 0")
    if envs < 1:
        raise UserError(f"envs must be >= 1, got {envs}")
    if frames < 0 or iteration_frames < 0 or checkpoint_iterations < 0:
        raise UserError("frames, iteration_frames and checkpoint_iterations must be >= 0 (0 chooses)")
    known = environments.get(game.split(ARROW)[0].strip())
    each = 4 if known.suite == "atari" else 1
    frames = frames or FRAMES.get(known.suite, SMALL_FRAMES)
    chosen, checkpoints = (iteration_frames, 1) if iteration_frames else schedules.default(frames, envs, each)
    if rest.get("switch_iterations") and not iteration_frames:
        raise UserError("switch_iterations counts iterations: give --iteration-frames, too")
    planned = {f: rest.pop(f) for f in ("switch_iterations", "keep_replay", "event_updates") if f in rest}
    schedule = Schedule(
        frames=frames,
        iteration_frames=chosen,
        checkpoint_iterations=checkpoint_iterations or checkpoints,
        envs=envs,
        **planned,
    )
    period = measure_updates if measure_updates >= 0 else (20_000 if known.suite == "atari" else 1_000)
    measure = Measure(every_updates=period, **rest)
    return [
        Run.of(game, agent, combination, seed, schedule, measure, protocol, network, optimizer)
        for seed in seeds
        for combination in mitigations
    ]
