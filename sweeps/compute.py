"""Compute one group: chunk by chunk, with metric parts, checkpoints, and an orderly end whatever happens.

A save is a metric part followed by the checkpoint that says so; a part without its checkpoint is dropped on
resuming and computed again, so a killed and resumed group leaves the same rows as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from plasticity.errors import UserError
from plasticity.provenance import peak_memory_mib, provenance
from plasticity.record import FINISHED, part_path, read_runs, write_json
from sweeps import checkpoint, program, rows, store
from sweeps.grouping import Group
from tasks.data import for_task
from tasks.train import chunks


class Stopped(Exception):
    """The user asked to stop; everything computed so far is saved."""


@dataclass
class Options:
    """save_seconds: time between saves. chunk_updates: longest chunk. stop: polled between chunks.
    progress: told the number of run-updates made since the last call."""

    save_seconds: float = 20.0
    chunk_updates: int = 20_000
    stop: Callable[[], bool] = lambda: False
    progress: Callable[[int], None] = lambda updates: None


@dataclass
class _Position:
    """Where a group is: the next chunk, the number of saves made, and the task in which each lane diverged.

    longest: `chunk_updates` as the group was begun with, which gives the number of a chunk its meaning.
    """

    longest: int
    task: int = 0
    chunk: int = 0
    saves: int = 0
    diverged: dict[str, int] = field(default_factory=dict)


def compute(path: Path, group: Group, options: Options) -> bool:
    """Compute a group to its end. Returns False if it failed; its runs are then marked so, with the error.

    Raises `Stopped` after saving if asked to stop, and `UserError` if the disk cannot be written.
    """
    with store.locked(path) as mine:
        if not mine:
            return True  # another process is on it and will report
        if all(line.status in FINISHED for line in read_runs(path)):
            return True  # another process has finished it since this one made its plan
        try:
            _Computation(path, group, options).run()
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
            store.set_status(path, group, "failed", f"{kind}{reason}"[:500])
            return False
    return True


class _Computation:
    def __init__(self, path: Path, group: Group, options: Options) -> None:
        self.path, self.group, self.options = path, group, options
        self.run_ids = [run.id for run in group.flat]
        self.frames: list[Any] = []
        self.position = _Position(options.chunk_updates)
        self.saved_at = self.started_at = time.monotonic()

    def run(self) -> None:
        task, measure = self.group.first.task, self.group.first.measure
        store.set_status(self.path, self.group, "running")
        origin = {**provenance(), "group_size": len(self.run_ids), "shape": self.group.shape}
        write_json(self.path / "provenance.json", origin)
        data = for_task(task)
        self.state = program.begin(self.group, data)
        self._resume()
        plan = chunks(task, measure, self.position.longest)
        while self.position.task < task.num_tasks:
            span, chunk = plan[self.position.chunk]
            index = self.position.task
            self.state, record = program.advance(self.group, span, self.state, index, chunk, data)
            record = jax.device_get(record)
            self._note_divergence(record.final, index)
            if record.dense or record.final:  # with measuring off, a chunk within a task leaves nothing
                self.frames.append(rows.frame(self.run_ids, record, chunk, index, task.steps))
            self.position.chunk += 1
            if span.ends:
                self.position.task, self.position.chunk = index + 1, 0
            self.options.progress(len(self.run_ids) * int(chunk.lasts[-1] + 1 - chunk.firsts[0]))
            if self.position.task == task.num_tasks:
                break
            if self.options.stop():
                self._save()
                raise Stopped
            if time.monotonic() - self.saved_at >= self.options.save_seconds:
                self._save()
        self._finish(origin)

    def _resume(self) -> None:
        """Go back to the newest checkpoint, and drop metric parts that were written after it."""
        newest = checkpoint.latest(self.path / "checkpoints")
        if newest is not None:
            self.state, host = checkpoint.load(newest, self.state)
            self.position = _Position(**host)
        metrics = self.path / "metrics"
        for part in metrics.glob("*.parquet"):
            if part.name >= part_path(self.path, self.position.saves).name or part.name == rows.COMPACTED:
                part.unlink()
        task = self.group.first.task
        done = self.position.task * task.steps
        self.options.progress(len(self.run_ids) * done)

    def _note_divergence(self, final: dict[str, np.ndarray], index: int) -> None:
        # Both losses: the online loss is of before each update, so it does not see what a task's last one did.
        for name in ("online_loss", "end_loss"):
            if name in final:
                bad = ~np.isfinite(np.asarray(final[name]).reshape(-1))
                for lane in np.flatnonzero(bad):
                    self.position.diverged.setdefault(self.run_ids[lane], index)

    def _write_part(self) -> None:
        if self.frames:
            rows.write_part(part_path(self.path, self.position.saves), self.frames)
        self.frames = []
        self.position.saves += 1

    def _save(self) -> None:
        self._write_part()
        checkpoint.save(self.path / "checkpoints", self.position.saves, self.state, vars(self.position))
        self.saved_at = time.monotonic()

    def _finish(self, origin: dict[str, Any]) -> None:
        self._write_part()
        statuses: list[tuple[str, str | None]] = []
        for run_id in self.run_ids:
            task = self.position.diverged.get(run_id)
            statuses.append(("done", None) if task is None else ("diverged", f"loss not finite in task {task}"))
        seconds = round(time.monotonic() - self.started_at, 2)
        write_json(
            self.path / "provenance.json", {**origin, "wall_seconds": seconds, "peak_memory_mib": peak_memory_mib()}
        )
        store.write_statuses(self.path, self.group, statuses)
        # From here on the group is finished; what follows only tidies up.
        rows.compact(self.path / "metrics")
        for old in (self.path / "checkpoints").glob("*.npz"):
            old.unlink()
