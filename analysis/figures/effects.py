"""Every contrast of every claim with its interval and margin: how large the effects are, and what they decide."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.study import Study
from analysis.style import GREY, INK, VERDICTS
from analysis.verdicts import decide_all
from analysis.words import number, places, span

NAME = "effects"
TITLE = "Effect sizes behind the claims"
CAPTION = (
    "Each line is a contrast, paired by seed, with its interval. The tick is the margin it is held against and "
    "the arrow the side that was claimed. A filled point in green: the whole interval lies on the claimed side "
    "(reproduced); a cross in orange: on the other side (not reproduced); an open point in grey: undecided. Thin "
    "bars are widened for a choice among several."
)
ORDER = 30
_MARKERS = {"reproduced": "o", "not reproduced": "X", "undecided": "o"}


def select(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    rows = []
    for decided in decide_all(frame, study):
        for leaf in decided.test.leaves():
            e = leaf.estimate
            assert e is not None
            place = {"claim": decided.claim.id, "contrast": leaf.name, "quantity": leaf.quantity}
            held = {"claimed": leaf.claimed, "margin": leaf.margin, "verdict": leaf.verdict}
            rows.append({**place, **e._asdict(), **held})
    table = pd.DataFrame(rows)
    return table[table["n"] > 0].reset_index(drop=True) if len(table) else table


def draw(plotted: pd.DataFrame, study: Study) -> Figure:
    # Scores, losses and norms live on different scales: a panel for each.
    groups = [(str(q), own.reset_index(drop=True)) for q, own in plotted.groupby("quantity", sort=False)]
    counts = [len(own) for _, own in groups]
    figure = Figure(figsize=(8.4, 0.9 + 0.36 * sum(counts) + 0.6 * len(groups)), layout="constrained")
    axes = figure.subplots(len(groups), 1, squeeze=False, height_ratios=[c + 1 for c in counts])[:, 0]
    for ax, (quantity, own) in zip(axes, groups, strict=True):
        for i, row in enumerate(own.to_dict("records")):
            _contrast(ax, i, row, study.level)
            if i and row["claim"] != own["claim"][i - 1]:
                ax.axhline(i - 0.5, color="#e4e4e4", linewidth=0.8)
        ax.set_yticks(range(len(own)), [f"{c}   {n}" for c, n in zip(own["claim"], own["contrast"], strict=True)])
        ax.set_ylim(len(own) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0, labelsize=8)
        ax.grid(axis="y", visible=False)
        ax.spines["left"].set_visible(False)
        ax.axvline(0, color=GREY, linewidth=0.7, zorder=0)
        ax.set_xlabel(f"difference in {quantity}")
    handles = [
        Line2D([], [], color=c, marker=_MARKERS[v], markerfacecolor=_fill(v), linewidth=2.2, label=v)
        for v, c in VERDICTS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _contrast(ax: Axes, i: int, row: dict, level: float) -> None:
    """Line i: interval and point, the margin with an arrow to the claimed side, the numbers at the right."""
    color = VERDICTS[row["verdict"]]
    look = {"color": color, "marker": _MARKERS[row["verdict"]], "markerfacecolor": _fill(row["verdict"])}
    ax.plot([row["low"], row["high"]], [i, i], color=color, linewidth=2.2 if row["level"] <= level else 1.1)
    ax.plot(row["value"], i, markersize=6.5, **look)
    ax.plot([row["margin"]] * 2, [i - 0.3, i + 0.3], color=INK, linewidth=1.2, zorder=1)
    way = 9 if row["claimed"] == "greater" else -9
    arrow = {"arrowstyle": "<-", "color": INK, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (row["margin"], i + 0.3), xytext=(way, 0), textcoords="offset points", arrowprops=arrow)
    value = number(row["value"], places(row["low"], row["high"]), signed=True)
    said = f"{value} {span(row['low'], row['high'], signed=True)}  n = {row['n']}"
    ax.text(1.01, i, said, transform=ax.get_yaxis_transform(), va="center", fontsize=7.5, color="#444444")


def _fill(verdict: str) -> str:
    return "white" if verdict == "undecided" else VERDICTS[verdict]
