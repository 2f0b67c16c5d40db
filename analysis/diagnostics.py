"""Which recorded quantities are diagnostics, in which order they are shown, and what their axes are called."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from analysis.study import Study, Task

TASK_LEVEL = (
    "end_score", "online_score", "test_score", "end_loss", "online_loss", "test_loss",
    "return", "episodes", "episode_length", "epsilon", "game", "frames",
)  # fmt: skip
BASELINE = "baseline_"
MOST = 12  # rows in a figure; everything recorded is in `python -m analysis export`
MOST_GAMES = 6  # columns in a figure of diagnostics by game
BINS = 200  # points of a line over a whole run
_AFTER = 24  # points of a line after a switch
_SHARE = "_units"
_FIRST = (
    "dead_units", "linearized_units", "dormant_units", "sign_entropy", "srank", "effective_rank",
    "weight_norm", "q_mean", "td_error", "policy_churn", "value_churn", "probe_loss",
    "distance_from_init", "gradient_norm", "update_norm", "update_ratio", "effective_lr_adam",
)  # fmt: skip


def is_baseline(name: str) -> bool:
    """Whether a quantity is the score of something that is no network, such as repeating the last label."""
    return name.startswith(BASELINE)


def names(frame: pd.DataFrame) -> list[str]:
    """Diagnostics with a finite value: the common ones in fixed order, others behind them, at most MOST."""
    finite = frame.loc[np.isfinite(frame["value"].to_numpy(float)), "name"]
    found = {str(n) for n in finite.unique() if not is_baseline(str(n))} - set(TASK_LEVEL)
    return [*(n for n in _FIRST if n in found), *sorted(found - set(_FIRST))][:MOST]


def at_end_of_task(frame: pd.DataFrame) -> pd.DataFrame:
    """Diagnostics at their last record in each task, one row a run, diagnostic and task."""
    rows = frame[frame["name"].isin(names(frame))].sort_values(["run_id", "name", "task_index", "step"], kind="stable")
    return rows.drop_duplicates(["run_id", "name", "task_index"], keep="last")


def over_run(frame: pd.DataFrame) -> pd.DataFrame:
    """Diagnostics by optimiser updates, one row a run, diagnostic and step; for runs that are measured all along.

    More than BINS steps, or steps that differ between runs, are averaged within bins: the step is then a bin's middle.
    """
    rows = frame[frame["name"].isin(names(frame)) & np.isfinite(frame["value"].to_numpy(float))]
    found = []
    for _, own in rows.groupby(["task", "name"], observed=True):
        own = own.sort_values("step")
        usual = int(own.groupby("run_id", observed=True)["step"].nunique().median())
        steps, most = own["step"].nunique(), int(own["step"].max())
        if steps > BINS or steps > 1.2 * usual + 1:
            width = max(1, -(-(most + 1) // max(1, min(BINS, usual))))
            own = own.assign(step=own["step"] // width * width + width // 2)
        found.append(own)
    by = ["run_id", "task", "combination", "seed", "name", "step"]
    joined = pd.concat(found) if found else rows
    return joined.groupby(by, observed=True)["value"].mean().reset_index()


def first_games(frame: pd.DataFrame, study: Study) -> tuple[pd.DataFrame, str]:
    """The rows of the first MOST_GAMES games of a reinforcement-learning study, and what to say about the others."""
    keys = [t.key for t in study.tasks if (frame["task"] == t.key).any()]
    if not study.rl or len(keys) <= MOST_GAMES:
        return frame, ""
    note = f"Shown are the first {MOST_GAMES} of {len(keys)} games; all numbers: python -m analysis export."
    return frame[frame["task"].isin(keys[:MOST_GAMES])], note


def since_switch(frame: pd.DataFrame, study: Study, switches: int) -> pd.DataFrame:
    """Diagnostics by steps since the last switch, averaged within each run over its last `switches` switches.

    Columns run_id, task, combination, seed, name, since (optimiser updates), value. The first task is no switch.
    """
    by = ["run_id", "task", "combination", "seed", "name", "since"]
    known = names(frame)
    found = [_since(frame[frame["task"] == t.key], t, switches, known) for t in study.tasks if t.switch_every]
    rows = pd.concat(found) if found else frame.iloc[:0].assign(since=0)
    return rows.groupby(by, observed=True)["value"].mean().reset_index()


def _since(frame: pd.DataFrame, task: Task, switches: int, known: list[str]) -> pd.DataFrame:
    """Diagnostics of one task kind after its last switches, with `since`, steps since the switch."""
    visit = frame["task_index"] // task.switch_every
    if task.steps:
        begin = task.before(visit * task.switch_every)
    elif task.switch_every > 1:
        # A stretch of several iterations begins where the one before it ended.
        ends = frame.assign(visit=visit).groupby(["run_id", "visit"], observed=True)["step"].max()
        before = pd.MultiIndex.from_arrays([frame["run_id"].astype(str), visit - 1])
        begin = pd.Series(ends.rename(index=str, level=0).reindex(before).to_numpy(), index=frame.index)
    else:
        begin = frame.groupby(["run_id", "task_index"], observed=True)["step"].transform("min")
    since = frame["step"] - begin
    # Of a game the last switches so far: it trains for days. A stream is drawn when it has come to its end.
    last = visit.groupby(frame["run_id"], observed=True).transform("max") + 1 if task.games else task.num_tasks
    chosen = (visit >= 1) & (visit >= last - switches) & (since >= 0) & frame["name"].isin(known)
    chosen &= np.isfinite(frame["value"].to_numpy(float))
    rows = frame[chosen].assign(since=since[chosen].astype(int), visit=visit[chosen])
    if rows.empty:
        return rows
    usual = int(rows.groupby(["run_id", "visit", "name"], observed=True)["since"].nunique().median())
    if rows["since"].nunique() > 1.2 * usual + 1:
        # The schedule of records does not divide the stretch. Without joining, neighbouring points of a line would come
        # from different switches, and the line would be a saw.
        width = max(1, -(-(int(rows["since"].max()) + 1) // usual))
        rows["since"] = rows["since"] // width * width + width // 2
    if rows["since"].nunique() > 2 * _AFTER:
        ratio = np.log(max(2, rows["since"].max())) / _AFTER
        place = np.floor(np.log(np.maximum(rows["since"], 1)) / ratio)
        joined = np.round(np.exp((place + 0.5) * ratio)).astype(int)
        rows = rows.assign(since=np.where(rows["since"] > 0, joined, 0))
    return rows


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
