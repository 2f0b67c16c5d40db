"""Study and group folders: opened, locked, written and resumed so that nothing already computed is lost.

A study folder belongs to one study at one scale. A group folder belongs to the runs that are computed together; a
`GroupFolder` is what a computation keeps its books with: statuses, metric parts, checkpoints, provenance.
"""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from plasticity import checkpoint, rows
from plasticity.errors import UserError
from plasticity.provenance import peak_memory_mib, provenance
from plasticity.record import FINISHED, RunLine, part_path, read_json, read_runs, write_json, write_runs

IDENTITY = ("name", "scale", "schema")


class Stopped(Exception):
    """The user asked to stop; everything computed so far is saved."""


@dataclass
class Options:
    """save_seconds: time between saves. chunk_updates: longest stretch without a look at `stop`, which is polled.

    progress: told the amount of work (updates or frames over all runs) made since the last call. say: told in a few
    words how it goes.
    """

    save_seconds: float = 20.0
    chunk_updates: int = 20_000
    stop: Callable[[], bool] = lambda: False
    progress: Callable[[int], None] = lambda amount: None
    say: Callable[[str], None] = lambda words: None


def open_study(folder: Path, description: dict[str, Any], program: str, write: bool = True) -> None:
    """Create a study folder, or check that an existing one is of the same study; then write study.json.

    program: the package that was called, for the record. Raises `UserError` if the folder holds another study or
    something else, or cannot be written.
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
            "argv": ["python", "-m", program, *sys.argv[1:]],
        }
        write_json(path, {**stamp, **description})


def compute(path: Path, lines: Sequence[RunLine], body: Callable[[GroupFolder], None]) -> bool:
    """Compute a group to its end by `body`. Returns False if it failed; its runs are then marked so, with the error.

    Raises `Stopped` after saving if asked to stop, and `UserError` if the disk cannot be written.
    """
    with locked(path) as mine:
        if not mine:
            return True  # another process is on it and will report
        if all(line.status in FINISHED for line in read_runs(path)):
            return True  # another process has finished it since this one made its plan
        folder = GroupFolder(path, lines)
        try:
            body(folder)
        except (Stopped, KeyboardInterrupt):
            raise
        except Exception as error:
            if isinstance(error, UserError) and isinstance(error.__cause__, OSError):
                raise  # a disk that cannot be written stops the sweep: every group would meet it
            # One failing group harms no other: say what happened and let the sweep go on.
            with contextlib.suppress(OSError):
                (path / "error.txt").write_text(traceback.format_exc())
            reason = (str(error).strip().splitlines() or [""])[0]
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            folder.set_status("failed", f"{kind}{reason}"[:500])
            return False
    return True


class GroupFolder:
    """The books of a group that is being computed. lines: its runs in lane order."""

    def __init__(self, path: Path, lines: Sequence[RunLine]) -> None:
        self.path = path
        self.lines = list(lines)
        self.run_ids = [line.run_id for line in lines]
        self._frames: list[Any] = []
        self._saves = 0
        self._saved_at = self._started_at = time.monotonic()
        self._origin: dict[str, Any] = {}

    def begin(self, **facts: Any) -> None:
        """Mark the runs as running and write down where and with what they are computed."""
        self.set_status("running")
        # The peak at the end is of the process: what it was before tells whether the group needed it.
        before = {"peak_memory_before_mib": peak_memory_mib()}
        self._origin = {**provenance(), "group_size": len(self.lines), **before, **facts}
        write_json(self.path / "provenance.json", self._origin)

    def resume(self, template: Any) -> tuple[Any, dict[str, Any]] | None:
        """State and host part of the newest checkpoint, if any; metric parts that were written after it are dropped."""
        newest = checkpoint.latest(self.path / "checkpoints")
        found = None
        if newest is not None:
            state, host = checkpoint.load(newest, template)
            self._saves = host.pop("saves")
            found = state, host
        for part in (self.path / "metrics").glob("*.parquet"):
            if part.name >= part_path(self.path, self._saves).name or part.name == rows.COMPACTED:
                part.unlink()
        return found

    def add(self, frame: Any) -> None:
        """Take in metric rows; they are written with the next save."""
        self._frames.append(frame)

    def due(self, seconds: float) -> bool:
        """Whether rows were last written so long ago."""
        return time.monotonic() - self._saved_at >= seconds

    def save(self, state: Any, host: dict[str, Any]) -> None:
        """Write the rows so far, then a checkpoint. host: what the host knows, as plain data."""
        self.write_part()
        checkpoint.save(self.path / "checkpoints", self._saves, state, {**host, "saves": self._saves})

    def write_part(self) -> None:
        """Write the rows so far, without a checkpoint; a resumed run computes and writes them again."""
        if self._frames:
            rows.write_part(part_path(self.path, self._saves), self._frames)
        self._frames = []
        self._saves += 1
        self._saved_at = time.monotonic()

    def finish(self, statuses: Sequence[tuple[str, str | None]], **further: Any) -> None:
        """Write what is left and the final status of each run, then tidy up. further: facts for the provenance."""
        self.write_part()
        seconds = round(time.monotonic() - self._started_at, 2)
        facts = {"wall_seconds": seconds, "peak_memory_mib": peak_memory_mib(), **further}
        write_json(self.path / "provenance.json", {**self._origin, **facts})
        self.write_statuses(statuses)
        # From here on the group is finished; what follows only tidies up.
        rows.compact(self.path / "metrics")
        for old in (self.path / "checkpoints").glob("*.npz"):
            old.unlink()

    def set_status(self, status: str, error: str | None = None) -> None:
        """Write `runs.jsonl` with one status for all runs."""
        self.write_statuses([(status, error)] * len(self.lines))

    def write_statuses(self, statuses: Sequence[tuple[str, str | None]]) -> None:
        """Write `runs.jsonl` with a status and an error for each run in lane order."""
        pairs = zip(self.lines, statuses, strict=True)
        write_runs(self.path, [line._replace(status=s, error=e) for line, (s, e) in pairs])  # pyrefly: ignore


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
