"""Human-normalised score pooled over games and runs against environment frames."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import panels, pooled, returns
from analysis.published import FRAMES
from analysis.study import Study, Task

NAME = "normalized_scores"
TITLE = "All games together"
CAPTION = (
    "Interquartile mean of the human-normalised training score over games and runs against environment frames: 0 is "
    "random play, 1 a human. A line goes as far as every game has a run; combinations that lack a game are not drawn."
)
ORDER = 6
KIND = "rl"
METHOD = pooled.describe
PUBLISHED_NOTE = "Grey: Dopamine's published runs of the same games, 5 seeds, pooled in the same way."


def select(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    games = [
        t
        for t in returns.atari(study)
        if t.frames and ((frame["task"] == t.key) & (frame["name"] == "end_score")).any()
    ]
    if len(games) < 2:
        return pd.DataFrame()
    rows = []
    for c in study.combinations:
        tables = [_by_frames(returns.held(frame, task, c), task) for task in games]
        rows += [{**row, "combination": c, "source": "ours"} for row in _line(tables, study.level)]
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    note = f"{len(games)} games; n is the smallest number of seeds of a game."
    behind = _published(games, table, study)
    if behind:
        table = pd.concat([table, pd.DataFrame(behind)], ignore_index=True)
        note += f" {PUBLISHED_NOTE}"
    table.attrs["note"] = note
    return table


def _by_frames(table: pd.DataFrame, task: Task) -> pd.DataFrame:
    return table.set_axis(task.millions(table.index.to_series()).round(6), axis=0) if len(table) else table


def _line(tables: list[pd.DataFrame], level: float) -> list[dict]:
    """Pooled IQM at every number of frames that all games have; tables: frames x seeds."""
    common = sorted(set.intersection(*(set(t.index) for t in tables)))
    rows = []
    for frames in common:
        strata = [t.loc[frames].dropna().to_numpy(float) for t in tables]
        if all(x.size for x in strata):
            e = pooled.estimate(strata, level=level)
            rows.append({"frames": frames, "value": e.value, "low": e.low, "high": e.high, "n": e.n})
    return rows


def _published(games: list[Task], ours: pd.DataFrame, study: Study) -> list[dict]:
    """The published runs in the same way, of the agents that are here; only if every game was published."""
    rows, last = [], float(ours["frames"].max())
    for agent in sorted({study.agent(c) for c in ours["combination"].unique()}) if study.published else []:
        tables = []
        for task in games:
            curve = study.published.curve(task.games[0] if task.games else task.key, agent)  # pyrefly: ignore
            if curve is None or task.random is None or task.human is None:
                break
            score = (curve.T - task.random) / (task.human - task.random)
            frames = (np.arange(len(score)) + 1) * FRAMES / 1e6
            tables.append(pd.DataFrame(score, index=frames)[frames <= max(1.05 * last, 2.0)])
        else:
            place = {"combination": "", "source": agent, "n": np.nan}
            rows += [{**row, **place} for row in _line(tables, study.level)]
    return rows


def draw(plotted: pd.DataFrame, study: Study) -> Figure:
    figure, (ax,) = panels.grid(1, width=5.6, height=3.1)
    panels.published(ax, plotted)
    panels.bands(ax, plotted[plotted["source"] == "ours"], study, "frames")
    _, high = ax.get_ylim()
    panels.level_line(ax, 0.0, "random")
    if high > 0.5:
        panels.level_line(ax, 1.0, "human")
    ax.set_xlabel("frames (millions)")
    ax.set_ylabel("human-normalised score (IQM)")
    panels.from_zero(ax, plotted["frames"])
    panels.legend(figure, study, plotted["combination"], more=panels.published_entries(plotted))
    return figure
