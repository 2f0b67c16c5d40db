"""What each combination did to the mechanisms of plasticity loss, beside its scores and its cost.

Everything is of the late tasks (`Task.late`), IQM over seeds with an interval: the score at the end of a task and
online (before each update), the shares of dead and of linearised units, the norm of the parameters, and the rank of
the representation. The cost is the time of an update, measured while the study ran, as a multiple of what no mitigation
took on the same task; runs of other groups shared the machine, so it is an indication.
"""

from __future__ import annotations

import math
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import page
from analysis.outcomes import END, late
from analysis.stats import summarise
from analysis.study import NONE, Study
from analysis.words import capital, number, places, span

#: What is shown of the records, with a heading; those that were not recorded are left out.
COLUMNS = {
    END: "End of task",
    "online_score": "Online",
    "dead_units": "Dead units",
    "linearized_units": "Linearised units",
    "weight_norm": "Weight norm",
    "srank": "srank",
}
COST = "cost"


def table(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """One row a task kind, combination and column: task, combination, name, value, low, high, n."""
    recorded = set(frame["name"].unique())
    found = [
        summarise(late(frame, study, name), ["task", "combination"], level=study.level).assign(name=name)
        for name in COLUMNS
        if name in recorded
    ]
    return pd.concat([*found, cost(study)], ignore_index=True)


def cost(study: Study) -> pd.DataFrame:
    """Time of an update over that of no mitigation on the same task; columns as in `table`, without intervals."""
    seconds = {group: record.get("seconds_an_update") for group, record in study.provenance}
    taken = [float(seconds.get(Path(group).name) or math.nan) for group in study.runs["group"]]
    runs = study.runs.assign(value=np.array(taken)).dropna(subset="value")
    mean = runs.groupby(["task", "combination"], observed=True)["value"].agg(["mean", "size"]).reset_index()
    plain = dict(mean.loc[mean["combination"] == NONE, ["task", "mean"]].itertuples(index=False, name=None))
    mean = mean[mean["task"].isin(list(plain))]
    value = mean["mean"] / mean["task"].map(plain).astype(float)
    own = mean[["task", "combination"]].assign(value=value, low=float("nan"), high=float("nan"), n=mean["size"])
    return own.assign(name=COST)


def section(frame: pd.DataFrame, study: Study) -> str:
    """The section of the report; empty where nothing but scores was recorded."""
    found = table(frame, study) if not study.rl else frame.iloc[:0]
    if not (set(found["name"]) - {END, "online_score", COST}):
        return ""
    return "".join(_of_task(found[found["task"] == task.key], task.key, study) for task in study.tasks)


def _of_task(found: pd.DataFrame, key: str, study: Study) -> str:
    shown = [name for name in (*COLUMNS, COST) if (found["name"] == name).any()]
    cells = {(r.combination, r.what): r for r in found.rename(columns={"name": "what"}).itertuples()}
    score = {c: float(getattr(cells.get((c, END)), "value", -math.inf)) for c in study.combinations}
    rows = []
    for c in sorted(score, key=lambda c: -score[c]):
        if not any((c, name) in cells for name in shown):
            continue
        row = [escape(study.label(c))]
        for name in shown:
            row.append(_cell(cells.get((c, name)), name))
        rows.append(row)
    task = study.task(key)
    heads = [COLUMNS.get(name, "Time an update") for name in shown]
    title = f"{capital(task.label)}: late tasks, best score first"
    return page.table(["Combination", *heads], rows, caption=title, numeric=range(1, len(heads) + 1))


def _cell(cell: object, name: str) -> str:
    if cell is None:
        return "–"
    value, low, high = (float(getattr(cell, x)) for x in ("value", "low", "high"))
    if name == COST:
        return f"{value:.2f} ×"
    interval = "" if low != low else f'<div class="small">{span(low, high)}</div>'
    return number(value, places(low, high, value)) + interval
