"""What the commands of `python -m sweeps` do: plan, ask for room, execute, sum up."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from plasticity import cli
from plasticity.errors import UserError
from plasticity.folder import Options, Stopped, open_study
from plasticity.progress import bar, stop_flag
from plasticity.record import read_json
from sweeps import executors, kinds, store
from sweeps.estimate import Estimate, estimate
from sweeps.reuse import adopt
from sweeps.worker import STOPPED


@dataclass(frozen=True)
class Request:
    """A sweep to execute. description: the content of study.json."""

    description: dict[str, Any]
    runs: list[kinds.Run]
    out: Path
    executor: str = "inline"
    workers: int = 0
    lanes: int = 0
    save_seconds: float = 20.0
    chunk_updates: int = 20_000
    again: tuple[str, ...] = ()
    reuse: tuple[Path, ...] = ()


def execute(request: Request, dry_run: bool = False) -> int:
    """Carry out a request; the exit code."""
    console = _console()
    for name in ("workers", "lanes"):
        if getattr(request, name) < 0:
            raise UserError(f"--{name} must be >= 0, got {getattr(request, name)}")
    if not request.save_seconds >= 0:  # also not a number
        raise UserError(f"--save-seconds must be >= 0, got {request.save_seconds}")
    if request.chunk_updates < 1:
        raise UserError(f"--chunk-updates must be >= 1, got {request.chunk_updates}")
    executor = executors.get(request.executor)
    workers = request.workers or os.cpu_count() or 1
    open_study(request.out, request.description, "sweeps", write=False)
    cli.use_compilation_cache()
    kind = kinds.only(request.runs)
    lanes = request.lanes or kind.lanes.get(jax.default_backend(), kind.lanes["cpu"])
    if request.reuse and not dry_run:
        open_study(request.out, request.description, "sweeps")
        console.print(f"{adopt(request.out, request.reuse, request.runs)} finished runs taken over")
    plan = store.plan(request.out, request.runs, lanes, request.again)
    cost = estimate(plan.groups, workers if request.executor == "processes" else 1)
    _show_plan(console, request, plan, cost, kind.unit)
    if dry_run:
        return 0
    open_study(request.out, request.description, "sweeps")
    ok = True
    if plan.groups:
        folders = [store.save_group(request.out, group, request.again) for group in plan.groups]
        with stop_flag(console) as stopped, bar(console, f"{plan.runs} runs", cost.work, kind.unit) as progress:
            options = Options(request.save_seconds, request.chunk_updates, stopped, progress.advance)
            try:
                ok = executor(folders, options, workers)
            except Stopped:
                console.print(f"stopped; the same command goes on from here. Results so far: {request.out}")
                return STOPPED
    return show_status(request.out) or int(not ok)


def _console() -> Console:
    # No markup: errors, paths and specs may contain brackets, and mean them.
    return Console(highlight=False, markup=False)


def _show_plan(console: Console, request: Request, plan: store.Plan, cost: Estimate, unit: str) -> None:
    done = f", {plan.finished} finished before" if plan.finished else ""
    failed = f", {plan.failed} failed before (python -m sweeps retry {request.out})" if plan.failed else ""
    console.print(
        f"{request.description['title']}: {plan.runs} runs to compute{done}{failed}\n"
        f"{len(plan.groups)} groups, {cost.programs} compiled programs, {cost.work:,} {unit} over all runs\n"
        f"memory: {cost.state_mib:.0f} MiB state of the largest group, {cost.data_mib:.0f} MiB data; "
        f"time: about {_duration(cost.seconds)} (order of magnitude)\n"
        f"results: {request.out}"
    )
    if shutil.disk_usage(_existing(request.out)).free < 200 * 2**20:
        raise UserError(f"less than 200 MiB free on the disk of {request.out}; choose another --out")


def _existing(path: Path) -> Path:
    """The path, or its nearest ancestor that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _duration(seconds: float) -> str:
    for size, name in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} s"


def show_status(folder: Path) -> int:
    """Print the states of a study's runs and the errors of failed ones; exit code 1 if any run failed."""
    console = _console()
    meta = read_json(folder / "study.json")
    lines = store.lines(folder)
    table = Table(
        "task",
        "mitigations",
        "done",
        "diverged",
        "failed",
        "open",
        title=f"{meta['title']} ({folder})",
        title_justify="left",
    )
    cells: dict[tuple[str, str], Counter[str]] = {}
    for line in lines.values():
        cells.setdefault((line.config["task"], line.label), Counter())[line.status] += 1
    place = {task["key"]: i for i, task in enumerate(meta.get("tasks", ()))}

    def order(cell: tuple[str, str]) -> tuple[int, bool, int, str]:
        """Tasks as the study has them; no mitigation first, then few."""
        task, label = cell
        return place.get(task, len(place)), label != "none", label.count("+"), label

    for task, label in sorted(cells, key=order):
        count = cells[task, label]
        waiting = count["planned"] + count["running"]
        table.add_row(task, label, *(str(count[s]) for s in ("done", "diverged", "failed")), str(waiting))
    console.print(table)
    failed = [line for line in lines.values() if line.status == "failed"]
    for error, count in Counter(line.error for line in failed).items():
        console.print(f"{count} failed: {error}", style="red")
    total = Counter(line.status for line in lines.values())
    finished, planned = total["done"] + total["diverged"], max(meta["runs"], len(lines))
    console.print(f"{finished} of {planned} runs finished in {folder}")
    if finished >= planned:
        console.print(f"next: python -m analysis report {folder}")
    return 1 if failed else 0


def retry_runs(folder: Path, states: Sequence[str], executor: str, workers: int, lanes: int) -> int:
    """Compute the runs of a folder that are in one of `states` again."""
    description = read_json(folder / "study.json")
    runs = [kinds.from_config(line.config) for line in store.lines(folder).values() if line.status in states]
    if not runs:
        _console().print(f"no {' or '.join(states)} runs in {folder}")
        return 0
    return execute(Request(description, runs, folder, executor, workers, lanes, again=tuple(states)))
