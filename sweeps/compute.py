"""Compute one group: chunk by chunk, with metric parts, checkpoints, and an orderly end whatever happens.

A save is a metric part followed by the checkpoint that says so; a part without its checkpoint is dropped on
resuming and computed again, so a killed and resumed group leaves the same rows as an uninterrupted one.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np

from plasticity.folder import GroupFolder, Options, Stopped
from plasticity.folder import compute as compute_in
from sweeps import program, rows, store
from sweeps.grouping import Group
from tasks.train import Chunk, Span, chunks


@dataclass
class _Position:
    """Where a group is: the next chunk, and the task in which each lane diverged.

    longest: `chunk_updates` as the group was begun with, which gives the number of a chunk its meaning.
    """

    longest: int
    task: int = 0
    chunk: int = 0
    diverged: dict[str, int] = field(default_factory=dict)


def compute(path: Path, group: Group, options: Options) -> bool:
    """Compute a group to its end. Returns False if it failed; its runs are then marked so, with the error.

    Raises `Stopped` after saving if asked to stop, and `UserError` if the disk cannot be written.
    """
    return compute_in(path, store.lines_of(group), lambda folder: _Computation(folder, group, options).run())


class _Computation:
    def __init__(self, folder: GroupFolder, group: Group, options: Options) -> None:
        self.folder, self.group, self.options = folder, group, options
        self.position = _Position(options.chunk_updates)
        #: Seconds an update of one run, chunk by chunk; and the programs seen, whose first call also compiles.
        self.pace: list[float] = []
        self.seen: set[int] = set()

    def run(self) -> None:
        task, measure = self.group.first.task, self.group.first.measure
        run_ids = self.folder.run_ids
        self.folder.begin(shape=self.group.shape)
        data = task.load()
        self.state = program.begin(self.group, data)
        found = self.folder.resume(self.state)
        if found is not None:
            self.state, host = found
            self.position = _Position(**host)

        def next_chunk() -> tuple[Span, Chunk]:
            return chunks(task.length(self.position.task, data), measure, self.position.longest)[self.position.chunk]

        if self.position.task < task.num_tasks:
            behind = task.before(self.position.task, data) + int(next_chunk()[1].firsts[0])
            self.options.progress(len(run_ids) * behind)
        while self.position.task < task.num_tasks:
            index, started = self.position.task, time.perf_counter()
            span, chunk = next_chunk()
            self.state, record = program.advance(self.group, span, self.state, index, chunk, data)
            record = jax.device_get(record)
            updates = len(run_ids) * int(chunk.lasts[-1] + 1 - chunk.firsts[0])
            self._note_pace((time.perf_counter() - started) / updates)
            self._note_divergence(record.final, index)
            if record.dense or record.final:  # with measuring off, a chunk within a task leaves nothing
                self.folder.add(rows.frame(run_ids, record, chunk, index, task.before(index, data)))
            self.position.chunk += 1
            if span.ends:
                self.position.task, self.position.chunk = index + 1, 0
            self.options.progress(updates)
            if self.position.task == task.num_tasks:
                break
            if self.options.stop():
                self._save()
                raise Stopped
            if self.folder.due(self.options.save_seconds):
                self._save()
        self._finish()

    def _note_pace(self, seconds: float) -> None:
        # The state's placement differs between the first two calls, so both may compile.
        if self.position.chunk in self.seen and self.position.task > 1:
            self.pace.append(seconds)
        self.seen.add(self.position.chunk)

    def _note_divergence(self, final: dict[str, np.ndarray], index: int) -> None:
        # Both losses: the online loss is of before each update, so it does not see what a task's last one did.
        for name in ("online_loss", "end_loss"):
            if name in final:
                bad = ~np.isfinite(np.asarray(final[name]).reshape(-1))
                for lane in np.flatnonzero(bad):
                    self.position.diverged.setdefault(self.folder.run_ids[lane], index)

    def _save(self) -> None:
        self.folder.save(self.state, vars(self.position))

    def _finish(self) -> None:
        statuses: list[tuple[str, str | None]] = []
        for run_id in self.folder.run_ids:
            task = self.position.diverged.get(run_id)
            statuses.append(("done", None) if task is None else ("diverged", f"loss not finite in task {task}"))
        pace = {"seconds_an_update": statistics.median(self.pace)} if self.pace else {}
        self.folder.finish(statuses, **pace)
