"""Late score of every combination on every task kind, coloured by its distance from a fresh network."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure

from analysis.study import BESIDE, NONE, Study
from analysis.tables import late_table
from analysis.words import digits_for, number, span

NAME = "heat_map"
TITLE = "Every combination on every task kind"
CAPTION = (
    "Late score (last fifth of the tasks) with its interval and, below, the difference to a network "
    "re-initialised at every task, paired by seed. Orange: below the fresh network, plasticity was lost. Violet: "
    "above it. Without a fresh-network reference the colour is the score."
)
RL_TITLE = "Every combination on every game"
RL_CAPTION = (
    "Late score (last fifth of the iterations) with its interval and, below, the difference to no mitigation, or to a "
    "network re-initialised at every switch where the study has one, paired by seed. It gives the colour: orange "
    "below, violet above. With nothing to be compared with, the colour is the score."
)
ORDER = 5
_MANY = 8


def select(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    return late_table(frame, study)


def draw(plotted: pd.DataFrame, study: Study) -> Figure:
    tasks = [t for t in study.tasks if (plotted["task"] == t.key).any()]
    combinations = [c for c in study.combinations if (plotted["combination"] == c).any()]
    cells: dict[tuple, dict[str, Any]] = {(r["combination"], r["task"]): r for r in plotted.to_dict("records")}  # pyrefly: ignore
    shown, other = _compared(plotted, study)
    color = np.array([[cells.get((c, t.key), {}).get(shown, np.nan) for t in tasks] for c in combinations], float)
    if shown != "value":
        # What is compared with differs from itself by nothing: white, not missing.
        base = study.reference if shown == "gap" else NONE
        same = np.array([c.partition(BESIDE)[0] == base for c in combinations])
        color[same] = np.where(np.isnan(color[same]), 0.0, color[same])
    own_scale = not study.comparable
    if own_scale:
        color = _by_column(color)
    norm, scheme = _norm(color, shown, all(t.bounded for t in tasks))
    # Many games are rows: a page is higher than it is wide.
    turned = len(tasks) > _MANY and len(tasks) > len(combinations)
    color = color.T if turned else color
    places = [(c, t) for t in tasks for c in combinations] if turned else [(c, t) for c in combinations for t in tasks]
    down, across = color.shape
    figure = Figure(figsize=(2.9 + 1.5 * across, 1.1 + 0.56 * down), layout="constrained")
    ax = figure.add_subplot()
    image = ax.imshow(color, aspect="auto", norm=norm, cmap=scheme)
    decimals = {str(key): digits_for(own["value"]) for key, own in plotted.groupby("task", observed=True)}
    for k, (c, task) in enumerate(places):
        i, j = divmod(k, across)
        cell = cells.get((c, task.key))
        if cell is None:
            ax.text(j, i, "no complete run", ha="center", va="center", fontsize=7, color="#777777", style="italic")
            continue
        ink = _ink(image.to_rgba(color[i : i + 1, j])[0])
        digits = 2 if task.bounded else decimals[task.key]
        below = span(cell["low"], cell["high"], digits) if np.isfinite(cell["low"]) else f"n = {cell['n']}"
        if shown != "value" and np.isfinite(cell[shown]):
            below += f"\n{number(cell[shown], digits, signed=True)} vs {other}"
        value = number(cell["value"], digits)
        ax.text(j, i - 0.18, value, ha="center", va="center", fontsize=9, weight="bold", color=ink)
        ax.text(j, i + 0.2, below, ha="center", va="center", fontsize=6.5, color=ink, linespacing=1.15)
    _headings(ax, [t.label for t in tasks], [study.label(c) for c in combinations], turned)
    bar = figure.colorbar(image, ax=ax, shrink=0.7, aspect=30, pad=0.02)
    whole = {"gap": "late score minus fresh network", "gain": "late score minus no mitigation", "value": "late score"}
    short = f"versus {other}" if other else "late score"
    bar.set_label(f"{short}\n(1: most in its {study.terms.kind})" if own_scale else whole[shown])
    bar.ax.set_ylim(*_reach(color, norm))
    bar.outline.set_visible(False)  # pyrefly: ignore
    return figure


def _compared(plotted: pd.DataFrame, study: Study) -> tuple[str, str]:
    """(column that gives the colour, what it is a difference to): the reference, no mitigation, or nothing."""
    if plotted["gap"].notna().any():
        return "gap", "fresh"
    # In games there is seldom a fresh network to compare with, and the score alone mostly tells which game it is.
    if study.rl and plotted["gain"].notna().any():
        return "gain", "none"
    return "value", ""


def _by_column(color: np.ndarray) -> np.ndarray:
    """Raw returns of different games on one scale: shares of the largest absolute value of each column."""
    most = np.nanmax(np.abs(color), axis=0, initial=0.0)
    return color / np.where(most > 0, most, 1.0)


def _norm(color: np.ndarray, shown: str, bounded: bool) -> tuple[Normalize, str]:
    if shown == "value":
        low, high = (0.0, 1.0) if bounded else (min(0.0, float(np.nanmin(color))), float(np.nanmax(color)))
        return Normalize(low, high if high > low else low + 1.0), "cividis"
    # A little more than is there, so that the ends of the scheme, nearly black, are not reached.
    most = 1.2 * max(0.05, float(np.nanmax(np.abs(color))))
    return TwoSlopeNorm(0.0, -most, most), "PuOr"


def _headings(ax: Axes, tasks: list[str], combinations: list[str], turned: bool) -> None:
    """Names at the top and at the left, and white lines between the cells."""
    top, left = (combinations, tasks) if turned else (tasks, combinations)
    ax.set_xticks(range(len(top)), [_wrapped(text) for text in top], fontsize=8.5)
    ax.set_yticks(range(len(left)), left, fontsize=8.5)
    ax.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_xticks(np.arange(len(top) + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(len(left) + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=2)
    ax.tick_params(which="minor", length=0)


def _ink(background: np.ndarray) -> str:
    """Black or white, whichever reads better on a colour (luminance after WCAG 2, white favoured)."""
    linear = [((c + 0.055) / 1.055) ** 2.4 if c > 0.04045 else c / 12.92 for c in background[:3]]
    return "white" if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] < 0.24 else "#1a1a1a"


def _wrapped(text: str) -> str:
    """A heading in two lines of about equal length."""
    words = text.split()
    if len(words) < 2:
        return text
    cut = min(range(1, len(words)), key=lambda k: abs(len(" ".join(words[:k])) - len(" ".join(words[k:]))))
    return " ".join(words[:cut]) + "\n" + " ".join(words[cut:])


def _reach(color: np.ndarray, norm: Normalize) -> tuple[float, float]:
    """The part of the colour scale that occurs, with a margin; it always shows its middle."""
    low, high = float(norm.vmin or 0.0), float(norm.vmax or 1.0)
    if not isinstance(norm, TwoSlopeNorm):
        return low, high
    room = 0.08 * high
    return max(low, min(float(np.nanmin(color)), 0.0) - room), min(high, max(float(np.nanmax(color)), 0.0) + room)
