"""Diagnostics at the end of each task against optimiser updates: what builds up over the run."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import diagnostics, panels
from analysis.stats import summarise
from analysis.study import Study

NAME = "diagnostics_over_time"
TITLE = "What builds up inside the network"
CAPTION = (
    "Diagnostics of the whole network at the end of each task against optimiser updates; a row is a diagnostic, a "
    "column a task kind (of a single task kind, a panel is a diagnostic). Measured at the end of a task, so that "
    "spikes just after a switch do not alias into a trend."
)
RL_CAPTION = (
    "Diagnostics of the whole network against optimiser updates, as they were measured during training (means of "
    "stretches where there are more records than a line can show); a row is a diagnostic, a column a game (or a panel "
    "a diagnostic, of a single game)."
)
ORDER = 40
LINES = True


def select(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    frame, note = diagnostics.first_games(frame, study)
    rows = diagnostics.over_run(frame) if study.rl else diagnostics.at_end_of_task(frame)
    table = diagnostics.bounded(summarise(rows, ["name", "task", "combination", "step"], level=study.level))
    table.attrs["note"] = note
    return table


def draw(plotted: pd.DataFrame, study: Study) -> Figure:
    names = diagnostics.names(plotted)
    tasks = [task for task in study.tasks if (plotted["task"] == task.key).any()]
    if len(tasks) == 1:
        return _one_task(plotted, study, names, tasks[0].label)
    figure, axes = panels.matrix(len(names), len(tasks))
    for i, name in enumerate(names):
        row = plotted[plotted["name"] == name]
        for j, task in enumerate(tasks):
            ax = axes[i, j]
            panels.bands(ax, row[row["task"] == task.key], study, "step", markers=False)
            diagnostics.scale(ax, name, row["value"])
            ax.xaxis.set_major_locator(MaxNLocator(4))
            ax.margins(x=0.02)
            if i == 0:
                ax.set_title(task.label)
            if i == len(names) - 1:
                ax.set_xlabel("optimiser updates")
            if j == 0:
                ax.set_ylabel(diagnostics.label(name))
    figure.align_ylabels()
    panels.legend(figure, study, plotted["combination"], markers=False)
    return figure


def _one_task(plotted: pd.DataFrame, study: Study, names: list[str], label: str) -> Figure:
    """A single column would be a tower: the diagnostics side by side instead."""
    figure, axes = panels.grid(len(names), width=3.0, height=1.9)
    for ax, name in zip(axes, names, strict=True):
        own = plotted[plotted["name"] == name]
        panels.bands(ax, own, study, "step", markers=False)
        diagnostics.scale(ax, name, own["value"])
        ax.set_title(diagnostics.label(name))
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.margins(x=0.02)
    for ax in axes[-panels.MOST_COLUMNS :]:
        ax.set_xlabel("optimiser updates")
    figure.suptitle(label)
    panels.legend(figure, study, plotted["combination"], markers=False)
    return figure
