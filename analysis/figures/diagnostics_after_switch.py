"""Diagnostics in the first updates after a task switch: what a switch does to the network, and whether it recovers."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, SymmetricalLogLocator

from analysis import diagnostics, panels
from analysis.stats import summarise
from analysis.study import Study

NAME = "diagnostics_after_switch"
SWITCHES = 5
TITLE = "What a task switch does"
CAPTION = (
    "Diagnostics of the whole network against optimiser updates since the last switch, averaged over the last "
    f"{SWITCHES} switches of each run; a row is a diagnostic, a column a task kind. The horizontal axis is "
    "logarithmic, and linear below 1 where there is a record before the first update."
)
RL_TITLE = "What a switch of game does"
RL_CAPTION = CAPTION.replace("a column a task kind", "a column a sequence of games")
ORDER = 50
LINES = True


def select(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    frame, note = diagnostics.first_games(frame, study)
    rows = diagnostics.since_switch(frame, study, SWITCHES)
    table = diagnostics.bounded(summarise(rows, ["name", "task", "combination", "since"], level=study.level))
    # One record a task says nothing about the time after a switch.
    dense = table.groupby(["name", "task"], observed=True)["since"].transform("nunique") >= 3
    table = table[dense].reset_index(drop=True)
    table.attrs["note"] = note
    return table


def draw(plotted: pd.DataFrame, study: Study) -> Figure:
    names = diagnostics.names(plotted)
    tasks = [task for task in study.tasks if (plotted["task"] == task.key).any()]
    first, last = float(plotted["since"].min()), float(plotted["since"].max())
    figure, axes = panels.matrix(len(names), len(tasks))
    for i, name in enumerate(names):
        row = plotted[plotted["name"] == name]
        for j, task in enumerate(tasks):
            ax = axes[i, j]
            panels.bands(ax, row[row["task"] == task.key], study, "since", markers=False)
            diagnostics.scale(ax, name, row["value"])
            if first:
                ax.set_xscale("log")
                if last < 50 * first:
                    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            else:
                ax.set_xscale("symlog", linthresh=1)
                ax.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.set_xlim(left=first)
            if i == 0:
                ax.set_title(task.label)
            if i == len(names) - 1:
                ax.set_xlabel("updates since the switch")
            if j == 0:
                ax.set_ylabel(diagnostics.label(name))
    figure.align_ylabels()
    panels.legend(figure, study, plotted["combination"], markers=False)
    return figure
