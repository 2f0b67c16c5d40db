"""The study folder: what is planned, what is finished, and what may be resumed.

A run is finished when any group says so, and is never computed again, also when the grid grows or is cut differently.
A group folder that was begun keeps its lanes until it is finished, because its checkpoint is of those lanes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from plasticity import checkpoint, spec
from plasticity.errors import UserError
from plasticity.mitigations import compose
from plasticity.mitigations.base import mitigations
from plasticity.record import FINISHED, RunLine, Status, group_folders, read_json, read_runs, write_json, write_runs
from sweeps import kinds
from sweeps.grouping import Group, groups_of


@dataclass(frozen=True)
class Plan:
    """What remains of a study. groups: to compute; finished, failed: numbers of runs that will not be computed."""

    groups: list[Group]
    finished: int
    failed: int

    @property
    def runs(self) -> int:
        """Number of runs to compute."""
        return sum(len(group.flat) for group in self.groups)


def lines(folder: Path) -> dict[str, RunLine]:
    """The runs of a study folder by id; where a run is in several groups, its furthest line."""
    rank = ("planned", "failed", "running", *FINISHED)
    best: dict[str, RunLine] = {}
    for group in group_folders(folder):
        for line in read_runs(group):
            known = best.get(line.run_id)
            if known is None or rank.index(line.status) > rank.index(known.status):
                best[line.run_id] = line
    return best


def plan(folder: Path, runs: Sequence[kinds.Run], lanes: int, again: Iterable[str] = ()) -> Plan:
    """What remains to be computed of `runs`. again: statuses (`failed`, `diverged`) to compute once more."""
    known = lines(folder)
    skipped = {*FINISHED, "failed"} - set(again)
    status = {run.id: known[run.id].status for run in runs if run.id in known}
    open_runs = {run.id: run for run in runs if status.get(run.id) not in skipped}
    kept: list[Group] = []
    for path in group_folders(folder):
        ids = [line.run_id for line in read_runs(path)]
        begun = checkpoint.latest(path / "checkpoints") is not None
        if begun and ids and all(i in open_runs for i in ids):
            kept.append(load_group(path))
            for i in ids:
                del open_runs[i]
    values = list(status.values())
    return Plan(
        kept + groups_of(list(open_runs.values()), lanes),
        finished=sum(v in FINISHED and v in skipped for v in values),
        failed=sum(v == "failed" and v in skipped for v in values),
    )


def save_group(folder: Path, group: Group, again: Iterable[str] = ()) -> Path:
    """Lay out a group's folder (`group.json`, `runs.jsonl`) unless it is there already; its path.

    again: statuses with which the group is planned anew.
    """
    path = folder / "groups" / group.id
    known = read_runs(path)
    if not known:  # `runs.jsonl` is written last, so where it is the folder is complete
        padded = [spec.to_text(method.mitigations) for method in group.padded]
        write_json(path / "group.json", {"shape": group.shape, "padded": padded})
    if not known or {line.status for line in known} & set(again):
        write_runs(path, lines_of(group))
    return path


def load_group(path: Path) -> Group:
    """The group of a folder, lanes and padding as they were."""
    meta = read_json(path / "group.json")
    seeds, methods = meta["shape"]
    runs = [kinds.from_config(line.config) for line in read_runs(path)]
    if len(runs) != seeds * methods:
        raise UserError(f"{path}: runs.jsonl has {len(runs)} runs, group.json says {seeds} x {methods}")
    rows = tuple(tuple(runs[i * methods : (i + 1) * methods]) for i in range(seeds))
    padded = tuple(
        replace(run.method, mitigations=compose.canonical(spec.build(text, mitigations)))
        for run, text in zip(rows[0], meta["padded"], strict=True)
    )
    return Group(rows, padded)


def lines_of(group: Group, status: Status = "planned", error: str | None = None) -> list[RunLine]:
    """The lines of a group's runs, in lane order."""
    return [RunLine(run.id, run.label, run.seed, status, error, run.config) for run in group.flat]
