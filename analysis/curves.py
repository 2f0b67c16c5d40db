"""A score against the index of the task or the frames of the game: one panel a task kind, one line a combination."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import panels
from analysis.diagnostics import BASELINE, is_baseline
from analysis.outcomes import per_task
from analysis.returns import BY, placed
from analysis.stats import summarise
from analysis.study import Study


def select(frame: pd.DataFrame, study: Study, metric: str) -> pd.DataFrame:
    """IQM and interval over seeds by task kind, combination and task; limits cut off where a score is bounded.

    In a reinforcement-learning study with the frames (millions), the game and the visit of every iteration.
    """
    table = summarise(per_task(frame, metric), BY, level=study.level)
    for task in study.tasks:
        own = table["task"] == task.key
        table.loc[own, ["low", "high"]] = task.clipped(table.loc[own])[["low", "high"]]
    return placed(table, study) if study.rl else table


def with_baselines(table: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """The table and, where they were recorded, scores that need no network: rows whose combination is their name.

    Baselines are of the task and the seed, the same for all combinations.
    """
    rows = frame[frame["name"].astype(str).map(is_baseline)]
    if rows.empty:
        return table
    means = rows.groupby(["task", "task_index", "name"], observed=True)["value"].mean().reset_index()
    means = means.rename(columns={"name": "combination"})
    means["combination"] = means["combination"].astype(str).str.removeprefix(BASELINE).str.replace("_", " ")
    return pd.concat([table.astype({"combination": object}), means], ignore_index=True)


def draw(plotted: pd.DataFrame, study: Study, label: str | None = None) -> Figure:
    """label: of the vertical axis; default the score label of each task kind."""
    tasks = [task for task in study.tasks if (plotted["task"] == task.key).any()]
    figure, axes = panels.many(len(tasks)) if study.rl else panels.grid(len(tasks))
    for ax, task in zip(axes, tasks, strict=True):
        own = plotted[plotted["task"] == task.key]
        panels.bands(ax, own, study, "frames" if task.frames else "task_index")
        panels.chance(ax, task.chance, study.terms.guess)
        panels.baselines(ax, own, study)
        if task.frames:
            panels.from_zero(ax, own["frames"])
            panels.switches(ax, task, int(own["task_index"].max()))
        ax.set_title(task.label)
        ax.set_xlabel("frames (millions)" if task.frames else f"{study.terms.unit} (0 is the first)")
        ax.set_ylabel(label or task.score_label)
        ax.xaxis.set_major_locator(MaxNLocator(6) if task.frames else MaxNLocator(integer=True))
        if not task.frames:
            ax.margins(x=0.02)
    panels.legend(figure, study, plotted["combination"])
    return figure
