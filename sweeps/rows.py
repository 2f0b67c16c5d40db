"""From the records of a task's chunk to tidy metric rows.

NaN marks a metric that was not due in a task (ranks at a longer period) and is dropped; an infinite or NaN loss of a
diverged run is kept, since it is what happened, and its score is NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from plasticity.diagnostics import unit_of
from plasticity.rows import tidy
from tasks.train import Chunk, Record

#: How predictions are judged: before each update, at the end of a task, and then on examples never trained on.
JUDGED = ("online", "end", "test")
TASK_UNITS = {
    **{f"{kind}_loss": "nats or squared error" for kind in JUDGED},
    "probe_loss": "share of variance",
    "updates_taken": "updates",
    "probe_loss_fresh": "share of variance",
}
SCORES = tuple(f"{kind}_{what}" for what in ("score", "loss") for kind in JUDGED)


def frame(run_ids: list[str], record: Record, chunk: Chunk, index: int, before: int) -> Any:
    """The rows of a chunk of task `index`, which begins after `before` updates, for runs in lane order: a pandas frame.

    Records have leaves `[seeds, methods, (points)]`. `step` of a dense row is the number of updates made by then.
    """
    points = before + np.asarray(chunk.lasts, np.int64) + 1
    final: dict[str, Any] = dict(record.final)
    for kind in JUDGED:
        if f"{kind}_loss" in final:
            # The arg max of predictions that are no numbers has an accuracy, but it is not a score of anything.
            finite = np.isfinite(np.asarray(final[f"{kind}_loss"]))
            final[f"{kind}_score"] = np.where(finite, final[f"{kind}_score"], np.nan)
    return tidy(run_ids, index, ((points, record.dense), (points[-1:], final)), unit, keep=SCORES)


def unit(name: str) -> str:
    """The unit of a task-level metric or a diagnostic."""
    if name in SCORES or name in TASK_UNITS or name.startswith("baseline_"):
        return TASK_UNITS.get(name, "share")
    return unit_of(name)
