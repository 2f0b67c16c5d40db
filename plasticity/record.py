"""The record schema: what a study leaves on disk, and how it is written so that nothing is ever half there.

    runs/<study>/study.json                     what was asked: tasks, factors, claims, plan
    runs/<study>/groups/<group-id>/
        runs.jsonl                              one line a run: id, label, seed, status, error, config
        metrics/part-00012.parquet              columns of COLUMNS, one part a save
        checkpoints/00012.npz                   state after that part (newest only)
        provenance.json                         where, when and with what it was computed

A metric row is tidy: `run_id, step, task, name, layer, value, unit`. `step` counts optimiser updates from the
start of the run, `task` counts tasks from 0, `layer` is empty for a value of the whole network. Every file is
written beside its place, flushed to disk and renamed. There is no pickle anywhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from plasticity.errors import UserError

SCHEMA = 1
COLUMNS = ("run_id", "step", "task", "name", "layer", "value", "unit")

Status = Literal["planned", "running", "done", "diverged", "failed"]
FINISHED: tuple[Status, ...] = ("done", "diverged")


class RunLine(NamedTuple):
    """One line of `runs.jsonl`. `config` is the canonical config, all values as spec text or numbers."""

    run_id: str
    label: str
    seed: int
    status: Status
    error: str | None
    config: dict[str, Any]


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a path to write to; on success flush it to disk and rename it to `path`, else leave nothing.

    A folder without write permission, a full disk and a path below a file become a `UserError` that names the path.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        with open(aside, "rb") as written:
            os.fsync(written.fileno())
        os.replace(aside, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {path}: {reason}") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, keys in the order given."""
    with atomic(path) as aside:
        aside.write_text(json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; a `UserError` names the path if it is missing or malformed."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def write_runs(folder: Path, lines: Iterable[RunLine]) -> None:
    """Write a group's `runs.jsonl` as a whole, atomically."""
    with atomic(folder / "runs.jsonl") as aside:
        aside.write_text("".join(json.dumps(line._asdict()) + "\n" for line in lines))


def read_runs(folder: Path) -> list[RunLine]:
    """The lines of a group's `runs.jsonl`, an empty list if there is none yet."""
    path = folder / "runs.jsonl"
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    try:
        return [RunLine(**json.loads(line)) for line in text.splitlines()]
    except (json.JSONDecodeError, TypeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def group_folders(study: Path) -> list[Path]:
    """The group folders of a study folder, sorted."""
    return sorted(p for p in (study / "groups").glob("*") if p.is_dir())


def part_path(group: Path, index: int) -> Path:
    """Where the metric rows of save `index` of a group go."""
    return group / "metrics" / f"part-{index:05d}.parquet"
