"""Small multiples with one line or marker style per combination and one legend outside the panels."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.study import Study
from analysis.style import GREY, looks

MOST_COLUMNS = 3


def grid(
    count: int, *, width: float = 3.4, height: float = 2.5, columns: int = MOST_COLUMNS
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels (inches each) in rows of at most `columns`."""
    across = min(count, columns)
    down = math.ceil(count / across)
    figure = Figure(figsize=(across * width, down * height + 0.9), layout="constrained")
    return figure, [figure.add_subplot(down, across, i + 1) for i in range(count)]


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


def chance(axes: Axes, level: float | None) -> None:
    """The score of guessing, as a thin dotted line with its name."""
    if level is None:
        return
    axes.axhline(level, color=GREY, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    axes.annotate(
        "chance", (1, level), xycoords=("axes fraction", "data"), xytext=(0, 2), textcoords="offset points",
        ha="right", va="bottom", fontsize=7, color=GREY,
    )  # fmt: skip


def legend(figure: Figure, study: Study, shown: Iterable[str], *, lines: bool = True, markers: bool = True) -> None:
    """One legend below the panels, in the canonical order of the combinations that are shown."""
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
    # Inches of an entry: its line, the gap behind it, and its letters.
    widths = [0.68 + 0.068 * len(str(h.get_label())) for h in handles]
    room = figure.get_figwidth() - 0.2
    columns = len(handles) if sum(widths) < room else max(1, int(room / max(widths)))
    columns = math.ceil(len(handles) / max(1, math.ceil(len(handles) / max(1, columns))))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=max(1, columns), handlelength=3.2, columnspacing=1.3
    )
