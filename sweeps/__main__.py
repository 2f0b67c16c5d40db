"""`python -m sweeps`: plan, run, resume and retry studies.

    python -m sweeps list
    python -m sweeps run factorial --scale laptop          # the same command again resumes
    python -m sweeps grid --name mine --task 'label_reset(eps=0.5)' --subsets layer_norm 'l2(1e-3)' --seeds 8
    python -m sweeps status runs/factorial-laptop
    python -m sweeps retry runs/factorial-laptop

Specs with parentheses need quotes in a shell. A mistake of the user is a message on stderr and exit code 2; the exit
code is 1 if any run failed and 130 if the sweep was stopped.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from plasticity import cli
from plasticity.errors import UserError

Status = Literal["failed", "diverged"]


def list_() -> None:
    """List the studies with their scales and costs."""
    from rich.console import Console
    from rich.table import Table

    from sweeps.study import studies

    table = Table("study", "scale", "runs", "cost", title="studies", title_justify="left")
    for name, study in studies().items():
        for scale in study.scales:
            size = study.scale(scale)
            table.add_row(name, scale, str(len(size.grid.runs())), size.cost)
    Console().print(table)


def plan(study: tyro.conf.Positional[str], scale: str = "laptop", out: Path | None = None, lanes: int = 0) -> None:
    """Show what a study would compute: runs, groups, compiled programs, memory, time. Writes nothing.

    Args:
        study: name of a study, as `list` shows it.
        scale: size of the study.
        out: results folder; default runs/STUDY-SCALE.
        lanes: most runs in a group; 0 chooses by the kind of device.
    """
    run(study, scale, out, lanes=lanes, dry_run=True)


def run(
    study: tyro.conf.Positional[str],
    scale: str = "laptop",
    out: Path | None = None,
    also: str = "",
    executor: str = "inline",
    workers: int = 0,
    lanes: int = 0,
    save_seconds: float = 20.0,
    chunk_updates: int = 20_000,
    reuse: tuple[Path, ...] = (),
    dry_run: bool = False,
    print_config: bool = False,
) -> int:
    """Run a study, or what is left of it: finished runs are never computed again.

    Args:
        study: name of a study, as `list` shows it.
        scale: size of the study, as `list` shows them.
        out: results folder; default runs/STUDY-SCALE.
        also: further diagnostics, such as 'pca_rank zero_activation_share'; the runs then have ids of their own.
        executor: inline (this process) or processes (one process a core).
        workers: processes at a time; 0 means one per core.
        lanes: most runs in a group; 0 chooses by the kind of device.
        save_seconds: seconds between saves.
        chunk_updates: updates between two looks at Ctrl-C, at most.
        reuse: folders of other studies; runs that one of them has finished are taken over, not computed again.
        dry_run: show runs, programs, memory and time, and write nothing.
        print_config: print study.json and the config of every run as JSON, and write nothing.
    """
    from sweeps.command import Request, execute
    from sweeps.kinds import measured
    from sweeps.study import get

    chosen = get(study)
    runs = measured(chosen.scale(scale).grid.runs(), also)
    request = Request(
        description=chosen.to_json(scale, runs),
        runs=runs,
        out=out or Path("runs") / f"{study}-{scale}",
        executor=executor,
        workers=workers,
        lanes=lanes,
        save_seconds=save_seconds,
        chunk_updates=chunk_updates,
        reuse=reuse,
    )
    if print_config:
        print(json.dumps({**request.description, "configs": {run.id: run.config for run in runs}}, indent=1))
        return 0
    return execute(request, dry_run)


def grid(
    name: str,
    task: list[str] | None = None,
    game: list[str] | None = None,
    agent: list[str] | None = None,
    frames: int = 0,
    iteration_frames: int = 0,
    mitigations: list[str] | None = None,
    subsets: list[str] | None = None,
    network: list[str] | None = None,
    optimizer: list[str] | None = None,
    seeds: int = 5,
    fresh: bool = True,
    also: str = "",
    out: Path | None = None,
    executor: str = "inline",
    workers: int = 0,
    lanes: int = 0,
    save_seconds: float = 20.0,
    chunk_updates: int = 20_000,
    reuse: tuple[Path, ...] = (),
    dry_run: bool = False,
) -> int:
    """Run a sweep of your own: the product of all axes, without writing a study.

    Args:
        name: what to call it.
        task: one or more task specs, such as 'label_reset(eps=0.5)'.
        game: one or more games instead, such as minatar_breakout pong.
        agent: with games: one or more agents' presets; default rainbow.
        frames: with games: length of a run in environment frames; 0 chooses by the kind of game.
        iteration_frames: with games: frames over which a score is averaged; 0 chooses.
        mitigations: one or more combinations, such as none 'layer_norm+l2(1e-3)'.
        subsets: mitigations of which all subsets are added, such as layer_norm 'l2(1e-3)' redo.
        network: one or more network specs; default mlp, with games the agent's own.
        optimizer: one or more optimiser specs; default adam, with games the agent's own.
        seeds: number of seeds, from 0.
        fresh: with tasks: add a network that is re-initialised at every switch, the reference to which loss of
            plasticity is the difference, paired by seed.
        also: further diagnostics to record, such as 'pca_rank zero_activation_share'.
        out: results folder; default runs/NAME.
        executor: inline (this process) or processes (one process a core).
        workers: processes at a time; 0 means one per core.
        lanes: most runs in a group; 0 chooses by the kind of device.
        save_seconds: seconds between saves.
        chunk_updates: updates between two looks at Ctrl-C, at most.
        reuse: folders of other studies; runs that one of them has finished are taken over, not computed again.
        dry_run: show runs, programs, memory and time, and write nothing.
    """
    from sweeps.command import Request, execute
    from sweeps.grid import Grid
    from sweeps.grid import subsets as all_subsets
    from sweeps.kinds import measured
    from sweeps.study import FRESH, Scale, Study

    combinations = [*(mitigations or []), *(all_subsets(*subsets) if subsets else [])] or ["none"]
    if bool(task) == bool(game):
        raise UserError("give either --task or --game")
    if game:
        from sweeps.agent_grid import AgentGrid

        settings = {"frames": frames, "iteration_frames": iteration_frames}
        axes = AgentGrid(game, agent or ["rainbow"], combinations, network or [""], optimizer or [""], seeds, settings)
    else:
        combinations = list(dict.fromkeys([*combinations, *([FRESH] if fresh else [])]))
        axes = Grid(task or [], combinations, network or ["mlp"], optimizer or ["adam"], seeds)
    reference = FRESH if FRESH in combinations else None
    study = Study(name, name, "A sweep without claims.", {"own": lambda: Scale(axes, "")}, reference=reference)
    runs = measured(axes.runs(), also)
    request = Request(
        description=study.to_json("own", runs),
        runs=runs,
        out=out or Path("runs") / name,
        executor=executor,
        workers=workers,
        lanes=lanes,
        save_seconds=save_seconds,
        chunk_updates=chunk_updates,
        reuse=reuse,
    )
    return execute(request, dry_run)


def status(folder: tyro.conf.Positional[Path]) -> int:
    """Show how far a study is: runs by state, and the errors of failed ones. Exit code 1 if any run failed.

    Args:
        folder: results folder, such as runs/factorial-laptop.
    """
    from sweeps.command import show_status

    return show_status(folder)


def retry(
    folder: tyro.conf.Positional[Path],
    states: tuple[Status, ...] = ("failed",),
    executor: str = "inline",
    workers: int = 0,
    lanes: int = 0,
) -> int:
    """Compute the failed runs of a study again.

    Args:
        folder: results folder, such as runs/factorial-laptop.
        states: which runs: failed, diverged or both.
        executor: inline (this process) or processes (one process a core).
        workers: processes at a time; 0 means one per core.
        lanes: most runs in a group; 0 chooses by the kind of device. Fewer lanes need less memory.
    """
    from sweeps.command import retry_runs

    return retry_runs(folder, states, executor, workers, lanes)


def work(
    folder: tyro.conf.Positional[Path | None] = None,
    save_seconds: float = 20.0,
    chunk_updates: int = 20_000,
    core: int = -1,
) -> int:
    """Compute laid-out group folders and report progress on stdout; what executors call.

    Args:
        folder: a group folder; without one, folders are read from stdin, a JSON string a line (see sweeps/worker.py).
        save_seconds: seconds between saves.
        chunk_updates: longest chunk.
        core: keep to this core, counted among those this process may use; -1 means all.
    """
    if core >= 0 and hasattr(os, "sched_setaffinity"):
        # Before JAX starts its thread pools, which are sized by it.
        usable = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {usable[core % len(usable)]})
    from sweeps.worker import serve, work_on

    return serve(save_seconds, chunk_updates) if folder is None else work_on(folder, save_seconds, chunk_updates)


COMMANDS: dict[str, Any] = {
    "list": list_,
    "plan": plan,
    "run": run,
    "grid": grid,
    "status": status,
    "retry": retry,
    "work": work,
}


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    return cli.run("python -m sweeps", __doc__ or "", COMMANDS, args)


if __name__ == "__main__":
    sys.exit(main())
