"""One number per run from its records: a metric averaged over a window of its tasks, by seed.

A window is complete or the run does not count: a run that is still on its way has no late score yet. Where scores have
gaps (an iteration of a game in which no episode ended), a window is complete once the run has come past it. A metric
that is recorded several times per task (a diagnostic) is taken at its last record of the task, because records
lie denser just after a switch and a mean over them would mostly describe the switch.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.study import Study
from plasticity.claims import Outcome
from plasticity.record import FINISHED

END = "end_score"


def per_task(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row a run and task: run_id, task, combination, mitigations, seed, status, task_index, step, value."""
    rows = frame[(frame["name"] == metric) & (frame["step"] >= 0)]
    rows = rows.sort_values(["run_id", "task_index", "step"], kind="stable")
    rows = rows.drop_duplicates(["run_id", "task_index"], keep="last")
    columns = ["run_id", "task", "combination", "mitigations", "seed", "status", "task_index", "step", "value"]
    return rows[columns].reset_index(drop=True)


def window(
    rows: pd.DataFrame, num_tasks: int, first: int | None = None, last: int | None = None, *, gaps: bool = False
) -> pd.DataFrame:
    """Mean of `value` over the first or last so many tasks, one row a run; runs without the whole window are left out.

    rows: as from `per_task`, of one task kind. Only finite values count as there. gaps: tasks without a value are no
    fault of a run that finished or came past the window.
    """
    low, high = 0, num_tasks
    if first is not None:
        high = min(first, num_tasks)
    if last is not None:
        low = max(num_tasks - last, 0)
    rows = rows[np.isfinite(rows["value"].to_numpy(float))]
    by = ["run_id", "combination", "mitigations", "seed", "status"]
    inside = rows[rows["task_index"].between(low, high - 1)]
    means = inside.groupby(by, observed=True)["value"].agg(["mean", "size"]).reset_index()
    whole = means["size"] >= max(high - low, 1)
    if gaps:
        past = rows.loc[rows["task_index"] >= high - 1, "run_id"]
        whole |= means["status"].isin(FINISHED) | means["run_id"].isin(past)
    return means[whole].drop(columns="size").rename(columns={"mean": "value"}).reset_index(drop=True)


def late(frame: pd.DataFrame, study: Study, metric: str = END) -> pd.DataFrame:
    """The metric over the late tasks (`Task.late`), one row a run, with its `task`."""
    rows = per_task(frame, metric)
    found = []
    for task in study.tasks:
        own = window(rows[rows["task"] == task.key], task.num_tasks, last=task.late, gaps=study.rl)
        found.append(own.assign(task=task.key))
    return pd.concat(found, ignore_index=True) if found else rows.iloc[:0]


def by_seed(frame: pd.DataFrame, study: Study, outcome: Outcome) -> pd.Series:
    """The outcome of a claim as a series over seeds; empty if the task or the mitigations were not run.

    Raises LookupError if several configurations fit, since then a seed does not name one run.
    """
    if outcome.task not in {task.key for task in study.tasks}:
        return pd.Series(dtype=float)
    rows = frame[(frame["task"] == outcome.task) & (frame["mitigations"] == outcome.mitigations)]
    found = rows["combination"].astype(str).unique()
    if len(found) > 1:
        raise LookupError(f"several configurations fit: {', '.join(sorted(found))}")
    num_tasks = study.task(outcome.task).num_tasks
    values = window(per_task(rows, outcome.metric), num_tasks, outcome.first, outcome.last, gaps=study.rl)
    return values.set_index("seed")["value"].sort_index()


def paired(values: pd.DataFrame, one: str, other: str) -> pd.DataFrame:
    """Differences one - other of two combinations at the same task and seed: columns task, seed, value."""
    a, b = (values[values["combination"] == c].set_index(["task", "seed"])["value"] for c in (one, other))
    return (a - b).dropna().rename("value").sort_index().reset_index()
