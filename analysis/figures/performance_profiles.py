"""Performance profiles: the share of runs x games whose late score is above every threshold."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import panels, pooled
from analysis.games import late_strata
from analysis.study import Study
from analysis.style import GREY

NAME = "performance_profiles"
TITLE = "How many runs reach which score"
CAPTION = (
    "Share of runs x games whose late human-normalised score (mean over the last fifth of the iterations) exceeds a "
    "threshold: higher is better, and a line above another everywhere is better whatever statistic one prefers. Where "
    "a line crosses one half is the median run. Bands are pointwise."
)
ORDER = 8
KIND = "rl"
METHOD = pooled.describe
FEWEST = 5  # runs; a profile of fewer is a list of them
POINTS = 201


def select(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    found = {c: strata for c, strata in late_strata(frame, study).items() if sum(x.size for x in strata) >= FEWEST}
    if not found:
        return pd.DataFrame()
    every = np.concatenate([x for strata in found.values() for x in strata])
    taus = np.linspace(min(0.0, float(every.min())), max(1.0, float(every.max())), POINTS)
    rows = []
    for c, strata in found.items():
        share, low, high = pooled.profile(strata, taus, study.level)
        numbers = {"tau": taus, "value": share, "low": low, "high": high, "n": min(x.size for x in strata)}
        rows.append(pd.DataFrame({"combination": c, **numbers, "runs": sum(x.size for x in strata)}))
    table = pd.concat(rows, ignore_index=True)
    table.attrs["note"] = f"{len(next(iter(found.values())))} games; n is the smallest number of seeds of a game."
    return table


def draw(plotted: pd.DataFrame, study: Study) -> Figure:
    figure, (ax,) = panels.grid(1, width=5.6, height=3.1)
    panels.bands(ax, plotted, study, "tau", markers=False)
    ax.axvline(1.0, color=GREY, linewidth=0.9, linestyle=(0, (5, 3)), zorder=0)
    ax.annotate(
        "human", (1, 1), xycoords=("data", "axes fraction"), xytext=(2, -2), textcoords="offset points", va="top",
        fontsize=7, color=GREY,
    )  # fmt: skip
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel("human-normalised score τ")
    ax.set_ylabel("share of runs with score > τ")
    ax.margins(x=0.02)
    panels.legend(figure, study, plotted["combination"], markers=False)
    return figure
