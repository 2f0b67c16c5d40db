"""Which recorded quantities are diagnostics, in which order they are shown, and what their axes are called."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from analysis.study import Study

TASK_LEVEL = ("end_score", "online_score", "end_loss", "online_loss")
MOST = 12  # rows in a figure; everything recorded is in `python -m analysis export`
_SHARE = "_units"
_FIRST = (
    "dead_units", "linearized_units", "dormant_units", "sign_entropy", "srank", "effective_rank",
    "weight_norm", "distance_from_init", "gradient_norm", "update_norm", "update_ratio", "effective_lr_adam",
)  # fmt: skip


def names(frame: pd.DataFrame) -> list[str]:
    """Diagnostics with a finite value: the common ones in fixed order, others behind them, at most MOST."""
    finite = frame.loc[np.isfinite(frame["value"].to_numpy(float)), "name"]
    found = {str(n) for n in finite.unique()} - set(TASK_LEVEL)
    return [*(n for n in _FIRST if n in found), *sorted(found - set(_FIRST))][:MOST]


def at_end_of_task(frame: pd.DataFrame) -> pd.DataFrame:
    """Diagnostics at their last record in each task, one row a run, diagnostic and task."""
    rows = frame[frame["name"].isin(names(frame))].sort_values(["run_id", "name", "task_index", "step"], kind="stable")
    return rows.drop_duplicates(["run_id", "name", "task_index"], keep="last")


def since_switch(frame: pd.DataFrame, study: Study, switches: int) -> pd.DataFrame:
    """Diagnostics by steps since the last switch, averaged within each run over its last `switches` switches.

    Columns run_id, task, combination, seed, name, since (optimiser updates), value. The first task is no switch.
    """
    rows = frame[frame["name"].isin(names(frame))]
    steps = rows["task"].astype(str).map({t.key: t.steps for t in study.tasks}).astype(float)
    begin = rows.groupby(["run_id", "task_index"], observed=True)["step"].transform("min")
    since = rows["step"] - (rows["task_index"] * steps).where(steps.notna(), begin)
    count = rows["task"].astype(str).map({t.key: t.num_tasks for t in study.tasks}).astype(int)
    chosen = (rows["task_index"] >= 1) & (rows["task_index"] >= count - switches) & (since >= 0)
    rows = rows.assign(since=since.astype(int))[chosen & np.isfinite(rows["value"].to_numpy(float))]
    by = ["run_id", "task", "combination", "seed", "name", "since"]
    return rows.groupby(by, observed=True)["value"].mean().reset_index()


def label(name: str) -> str:
    """The name of a diagnostic on an axis."""
    return name.replace("_", " ")


def bounded(table: pd.DataFrame) -> pd.DataFrame:
    """Limits cut off where the quantity itself ends: at 0 if it is never negative, at 1 if it is a share of units."""
    least = table.groupby("name", observed=True)["value"].transform("min")
    share = table["name"].astype(str).str.endswith(_SHARE)
    low = table["low"].where(least < 0, table["low"].clip(lower=0))
    return table.assign(low=low, high=table["high"].where(~share, table["high"].clip(upper=1)))


def logarithmic(name: str, values: pd.Series) -> bool:
    """Whether only a logarithmic axis shows the values: positive, of a wide range, and no share of units."""
    x = values[np.isfinite(values)]
    if name.endswith(_SHARE) or not len(x) or not (x > 0).all():
        return False
    return bool(x.quantile(0.98) > 30 * x.quantile(0.02))


def scale(axes: Axes, name: str, values: pd.Series) -> None:
    """Set a logarithmic vertical axis where `logarithmic` says so."""
    if logarithmic(name, values):
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
