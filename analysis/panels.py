"""Small multiples with one line or marker style per combination and one legend outside the panels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.study import Study, Task
from analysis.style import GREY, looks

MOST_COLUMNS = 3
_NAMES = {"dqn": "DQN", "rainbow": "Rainbow"}
_PUBLISHED: dict[str, Any] = {"dqn": "-", "rainbow": (0, (4, 1.5))}


def grid(
    count: int, *, width: float = 3.4, height: float = 2.5, columns: int = MOST_COLUMNS
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels (inches each) in rows of at most `columns`."""
    across = min(count, columns)
    down = math.ceil(count / across)
    figure = Figure(figsize=(across * width, down * height + 0.9), layout="constrained")
    return figure, [figure.add_subplot(down, across, i + 1) for i in range(count)]


def many(count: int) -> tuple[Figure, list[Axes]]:
    """A grid for any number of games: beyond nine, smaller panels and five in a row, so that it fits on a page."""
    return grid(count, width=2.4, height=1.9, columns=5) if count > 9 else grid(count)


def matrix(rows: int, columns: int, *, width: float = 2.6, height: float = 1.55) -> tuple[Figure, np.ndarray]:
    """A figure with rows x columns panels (inches each); columns share horizontal axes, rows vertical ones."""
    figure = Figure(figsize=(columns * width + 0.4, rows * height + 1.1), layout="constrained")
    return figure, figure.subplots(rows, columns, sharex="col", sharey="row", squeeze=False)


def bands(axes: Axes, plotted: pd.DataFrame, study: Study, x: str, *, markers: bool = True) -> None:
    """A line and a band per combination; the reference lies behind the others."""
    style = looks(study)
    for z, combination in enumerate(study.combinations):
        own = plotted[plotted["combination"] == combination].sort_values(x)
        if own.empty:
            continue
        look = style[combination]
        at = own[x].to_numpy(float)
        order = 2 if study.is_reference(combination) else 3 + 0.01 * z
        axes.fill_between(at, own["low"], own["high"], color=look.color, alpha=0.13, linewidth=0, zorder=1)
        axes.plot(
            at, own["value"], color=look.color, linestyle=look.dash, linewidth=look.width, zorder=order,
            marker=look.marker if markers and look.marker else "None", markersize=3.6, markevery=_sparse(len(at), z),
            label="_hidden",
        )  # fmt: skip


def _sparse(count: int, offset: int) -> list[int]:
    """About six markers a line, at places that differ between lines."""
    if count < 9:
        return list(range(count))
    step = math.ceil(count / 6)
    return list(range(offset % step, count, step))


def from_zero(axes: Axes, x: pd.Series) -> None:
    """A horizontal axis from 0 to a little behind the last of `x`."""
    axes.set_xlim(0, 1.02 * max(float(x.max()), 1e-6))


def chance(axes: Axes, level: float | None, name: str = "chance") -> None:
    """The score of guessing, as a thin dotted line with its name."""
    if level is not None:
        level_line(axes, level, name, dash=(0, (1, 2)))


def level_line(axes: Axes, level: float, name: str, *, dash: Any = (0, (5, 3))) -> None:
    """A thin grey line across the panel with its name above it at the right."""
    axes.axhline(level, color=GREY, linewidth=0.9, linestyle=dash, zorder=1)
    axes.annotate(
        name, (1, level), xycoords=("axes fraction", "data"), xytext=(0, 2), textcoords="offset points",
        ha="right", va="bottom", fontsize=7, color=GREY,
    )  # fmt: skip


def baselines(axes: Axes, plotted: pd.DataFrame, study: Study) -> None:
    """Scores that need no network, where the rows have some: thin grey lines, named at their end."""
    for name, own in plotted[~plotted["combination"].isin(study.combinations)].groupby("combination"):
        own = own.sort_values("task_index")
        axes.plot(own["task_index"], own["value"], color=GREY, linewidth=0.9, linestyle=(0, (3, 1, 1, 1)), zorder=1)
        axes.annotate(
            str(name), (own["task_index"].iloc[-1], own["value"].iloc[-1]), xytext=(0, 2), textcoords="offset points",
            ha="right", va="bottom", fontsize=7, color=GREY,
        )  # fmt: skip


def switches(axes: Axes, task: Task, last: int) -> None:
    """Thin upright lines where one game gives way to the next, up to iteration `last`. The axis is in frames."""
    if len(task.games) < 2 or not task.switch_every:
        return
    per = task.frames / 1e6 if task.frames else 1.0
    starts = range(0, last + 1, task.switch_every)
    for start in starts:
        if start:
            axes.axvline(start * per, color="#cfcfcf", linewidth=0.8, zorder=0)
        if len(starts) <= 6:
            axes.annotate(
                task.game_at(start).replace("_", " "), (start * per, 1), xycoords=("data", "axes fraction"),
                xytext=(3, -2), textcoords="offset points", va="top", fontsize=6.5, color=GREY,
            )  # fmt: skip


def published(axes: Axes, plotted: pd.DataFrame) -> None:
    """Published curves, the rows whose `source` is an agent and not "ours": grey, behind everything."""
    for agent, curve in plotted[plotted["source"] != "ours"].groupby("source"):
        axes.fill_between(curve["frames"], curve["low"], curve["high"], color=GREY, alpha=0.22, linewidth=0, zorder=0)
        dash = _PUBLISHED.get(str(agent), "-")
        axes.plot(curve["frames"], curve["value"], color=GREY, linestyle=dash, linewidth=1.4, zorder=1)


def published_entries(plotted: pd.DataFrame) -> list[Line2D]:
    """Entries of the legend for `published`."""
    agents = sorted(set(plotted["source"]) - {"ours"})
    looks: dict[str, Any] = {a: _PUBLISHED.get(a, "-") for a in agents}
    return [
        Line2D([], [], color=GREY, linestyle=looks[a], linewidth=1.4, label=f"Dopamine's {_NAMES[a]}") for a in agents
    ]


def legend(
    figure: Figure, study: Study, shown: Iterable[str], *, lines: bool = True, markers: bool = True,
    more: Iterable[Line2D] = (),
) -> None:  # fmt: skip
    """One legend below the panels: the combinations that are shown in canonical order, then `more` entries."""
    style, shown = looks(study), set(map(str, shown))
    handles = []
    for c in study.combinations:
        if c in shown:
            look = style[c]
            handles.append(
                Line2D(
                    [],
                    [],
                    color=look.color,
                    linestyle=look.dash if lines else "None",
                    linewidth=look.width,
                    marker=(look.marker or ("None" if lines else "s")) if markers else "None",
                    markersize=4.5,
                    label=study.label(c),
                )
            )
    handles += more
    # Inches of an entry: its line, the gap behind it, and its letters.
    widths = [0.68 + 0.068 * len(str(h.get_label())) for h in handles]
    room = figure.get_figwidth() - 0.2
    columns = len(handles) if sum(widths) < room else max(1, int(room / max(widths)))
    columns = math.ceil(len(handles) / max(1, math.ceil(len(handles) / max(1, columns))))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=max(1, columns), handlelength=3.2, columnspacing=1.3
    )
