"""Agents: a run plays a game, or a sequence of games. Work is counted in environment frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from plasticity.folder import Options
from plasticity.folder import compute as compute_in
from plasticity.identity import digest, resolved
from rl import study
from rl.run import Run
from rl.train import train
from sweeps import store
from sweeps.grouping import Group
from sweeps.kinds import Cost


class Agents:
    name = "rl"
    unit = "frames"
    #: An agent fills a CPU core by itself; a GPU has room for several replays beside each other.
    lanes = {"cpu": 4, "gpu": 8, "tpu": 8}  # noqa: RUF012 - constant

    from_config = staticmethod(Run.from_config)

    def common(self, run: Run) -> Any:
        parts = run.agent, run.protocol, run.schedule, run.measure
        return run.games, *(digest(resolved(part)) for part in parts)

    def structure(self, run: Run) -> Any:
        return self.common(run)

    def task_json(self, run: Run) -> dict[str, Any]:
        return study.task_json(run)

    def cost(self, group: Group) -> Cost:
        found = study.costs(group.first, len(group.flat))
        copies = 4 * found["parameters"] * 4 * len(group.flat)  # network, target, two moments, in float32
        return Cost(found["frames"], found["seconds"] or 0.0, found["replay_mib"] + copies / 2**20, 0.0)

    def compute(self, path: Path, group: Group, options: Options) -> bool:
        methods = [method for _ in group.runs for method in group.padded]
        # One process a core: emulation then has this core too.
        threads = 1 if jax.default_backend() == "cpu" else 0
        return compute_in(
            path,
            store.lines_of(group),
            lambda folder: train(folder, group.flat, methods, options, threads=threads),
        )


KIND = Agents()
