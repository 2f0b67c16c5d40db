"""Late score of every combination on every task kind, coloured by its distance from a fresh network."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure

from analysis.study import Study
from analysis.tables import late_table
from analysis.words import number, span

NAME = "heat_map"
TITLE = "Every combination on every task kind"
CAPTION = (
    "Late score (last fifth of the tasks) with its interval and, below, the difference to a network "
    "re-initialised at every task, paired by seed. Orange: below the fresh network, plasticity was lost. Violet: "
    "above it. Without a fresh-network reference the colour is the score."
)
ORDER = 5


def select(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    return late_table(frame, study)


def draw(plotted: pd.DataFrame, study: Study) -> Figure:
    tasks = [t for t in study.tasks if (plotted["task"] == t.key).any()]
    rows = [c for c in study.combinations if (plotted["combination"] == c).any()]
    cells: dict[tuple, dict[str, Any]] = {(r["combination"], r["task"]): r for r in plotted.to_dict("records")}  # pyrefly: ignore
    compared = bool(plotted["gap"].notna().any())
    shown = "gap" if compared else "value"
    color = np.array([[cells.get((c, t.key), {}).get(shown, np.nan) for t in tasks] for c in rows], float)
    if compared:
        # The reference differs from itself by nothing: white, not missing.
        color[[study.is_reference(c) for c in rows]] = 0.0
        # A little more than is there, so that the ends of the scheme, nearly black, are not reached.
        most = 1.2 * max(0.05, float(np.nanmax(np.abs(color))))
        norm, scheme = TwoSlopeNorm(0.0, -most, most), "PuOr"
    else:
        norm, scheme = Normalize(0, 1), "cividis"
    figure = Figure(figsize=(2.9 + 1.5 * len(tasks), 1.1 + 0.56 * len(rows)), layout="constrained")
    ax = figure.add_subplot()
    image = ax.imshow(color, aspect="auto", norm=norm, cmap=scheme)
    for i, c in enumerate(rows):
        for j, task in enumerate(tasks):
            cell = cells.get((c, task.key))
            if cell is None:
                ax.text(j, i, "no complete run", ha="center", va="center", fontsize=7, color="#777777", style="italic")
                continue
            ink = _ink(image.to_rgba(color[i : i + 1, j])[0])
            below = span(cell["low"], cell["high"], 2)
            if np.isfinite(cell["gap"]):
                below += f"\n{number(cell['gap'], signed=True)} vs fresh"
            ax.text(j, i - 0.18, number(cell["value"]), ha="center", va="center", fontsize=9, weight="bold", color=ink)
            ax.text(j, i + 0.2, below, ha="center", va="center", fontsize=6.5, color=ink, linespacing=1.15)
    ax.set_xticks(range(len(tasks)), [_wrapped(t.label) for t in tasks], fontsize=8.5)
    ax.set_yticks(range(len(rows)), [study.label(c) for c in rows], fontsize=8.5)
    ax.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_xticks(np.arange(len(tasks) + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=2)
    ax.tick_params(which="minor", length=0)
    bar = figure.colorbar(image, ax=ax, shrink=0.7, aspect=30, pad=0.02)
    bar.set_label("late score minus fresh network" if compared else "late score")
    bar.ax.set_ylim(*_reach(color, norm))
    bar.outline.set_visible(False)  # pyrefly: ignore
    return figure


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
    if low == 0.0:
        return low, high
    room = 0.08 * high
    return max(low, min(float(np.nanmin(color)), 0.0) - room), min(high, max(float(np.nanmax(color)), 0.0) + room)
