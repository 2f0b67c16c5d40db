"""A score against the index of the task: one panel a task kind, one line a combination."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import panels
from analysis.outcomes import per_task
from analysis.stats import summarise
from analysis.study import Study


def select(frame: pd.DataFrame, study: Study, metric: str) -> pd.DataFrame:
    """IQM and interval over seeds by task kind, combination and task; scores clipped to their range, [0, 1]."""
    table = summarise(per_task(frame, metric), ["task", "combination", "task_index"], level=study.level)
    table[["low", "high"]] = table[["low", "high"]].clip(0, 1)
    return table


def draw(plotted: pd.DataFrame, study: Study, label: str | None = None) -> Figure:
    """label: of the vertical axis; default the score label of each task kind."""
    tasks = [task for task in study.tasks if (plotted["task"] == task.key).any()]
    figure, axes = panels.grid(len(tasks))
    for ax, task in zip(axes, tasks, strict=True):
        panels.bands(ax, plotted[plotted["task"] == task.key], study, "task_index")
        panels.chance(ax, task.chance)
        ax.set_title(task.label)
        ax.set_xlabel("task (0 is the first)")
        ax.set_ylabel(label or task.score_label)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.margins(x=0.02)
    panels.legend(figure, study, plotted["combination"])
    return figure
