"""The study folder: what is planned, what is finished, and what may be resumed.

A run is finished when any group says so, and is never computed again, also when the grid grows or is cut differently.
A group folder that was begun keeps its lanes until it is finished, because its checkpoint is of those lanes.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from plasticity import spec
from plasticity.errors import UserError
from plasticity.mitigations import compose
from plasticity.mitigations.base import mitigations
from plasticity.record import FINISHED, RunLine, group_folders, read_json, read_runs, write_json, write_runs
from sweeps import checkpoint
from sweeps.grouping import Group, groups_of
from sweeps.run import Run

IDENTITY = ("name", "scale", "schema")


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


def open_study(folder: Path, description: dict[str, Any], write: bool = True) -> None:
    """Create a study folder, or check that an existing one is of the same study; then write study.json.

    Raises `UserError` if the folder holds another study or something else, or cannot be written.
    """
    path = folder / "study.json"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, not a folder; choose another --out")
    if path.exists():
        before = read_json(path)
        if not isinstance(before, dict) or not all(key in before for key in (*IDENTITY, "runs")):
            raise UserError(f"{path} is not of a study; choose another --out")
        for key in IDENTITY:
            if before.get(key) != description.get(key):
                raise UserError(
                    f"{folder} holds study {before.get('name')!r} at scale {before.get('scale')!r}, "
                    f"not {description['name']!r} at {description['scale']!r}; choose another --out"
                )
        description = {
            **description,
            "created": before.get("created"),
            "runs": max(before["runs"], description["runs"]),
        }
    elif folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no study; choose another --out")
    if write:
        stamp = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "argv": ["python", "-m", "sweeps", *sys.argv[1:]],
        }
        write_json(path, {**stamp, **description})


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


def plan(folder: Path, runs: Sequence[Run], lanes: int, again: Iterable[str] = ()) -> Plan:
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
        set_status(path, group, "planned")
    return path


def load_group(path: Path) -> Group:
    """The group of a folder, lanes and padding as they were."""
    meta = read_json(path / "group.json")
    seeds, methods = meta["shape"]
    runs = [Run.from_config(line.config) for line in read_runs(path)]
    if len(runs) != seeds * methods:
        raise UserError(f"{path}: runs.jsonl has {len(runs)} runs, group.json says {seeds} x {methods}")
    rows = tuple(tuple(runs[i * methods : (i + 1) * methods]) for i in range(seeds))
    padded = tuple(
        replace(run.method, mitigations=compose.canonical(spec.build(text, mitigations)))
        for run, text in zip(rows[0], meta["padded"], strict=True)
    )
    return Group(rows, padded)


def set_status(path: Path, group: Group, status: str, error: str | None = None) -> None:
    """Write `runs.jsonl` with one status for all runs."""
    write_statuses(path, group, [(status, error)] * len(group.flat))


def write_statuses(path: Path, group: Group, statuses: Sequence[tuple[str, str | None]]) -> None:
    """Write `runs.jsonl` with a status and an error for each run in lane order."""
    pairs = zip(group.flat, statuses, strict=True)
    write_runs(path, [RunLine(run.id, run.label, run.seed, s, e, run.config) for run, (s, e) in pairs])  # pyrefly: ignore


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the group's lock; yields False if another process has it. It is freed however a process ends."""
    try:
        import fcntl
    except ImportError:  # a platform without flock: no two processes on one study there
        yield True
        return
    try:
        file = open(path / ".lock", "w")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UserError(f"cannot write {path / '.lock'}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
