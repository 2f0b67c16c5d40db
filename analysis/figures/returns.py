"""Raw return against environment frames, a panel a game, with random play, human play and published curves behind."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import panels, returns
from analysis.published import FRAMES
from analysis.study import Study, Task

NAME = "returns"
TITLE = "How the return grows"
CAPTION = (
    "Undiscounted, unclipped return of the training episodes that ended in an iteration against environment frames, "
    "one panel a game. Dashed: random play and a human, where known. An iteration without a finished episode has no "
    "point."
)
ORDER = 7
KIND = "rl"
PUBLISHED_NOTE = (
    "Grey with a band: Dopamine's published training curves, mean and standard deviation of 5 seeds, sticky actions. "
    "Its DQN is the one with Adam and squared error; its Rainbow has C51, n-step returns and prioritised replay only."
)


def select(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    if not study.rl:
        return pd.DataFrame()
    table = returns.curves(frame, study).assign(source="ours")
    if table.empty:
        return table
    behind = [_published(task, table[table["task"] == task.key], study) for task in returns.atari(study)]
    behind = [own for own in behind if len(own)]
    if behind:
        table = pd.concat([table, *behind], ignore_index=True)
        table.attrs["note"] = PUBLISHED_NOTE
    return table


def _published(task: Task, ours: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Published curves of the agents that play this game here, as far as ours go; low and high are one sd away."""
    found = []
    agents = {study.agent(c) for c in map(str, ours["combination"].unique())}
    for agent in sorted(agents) if study.published and task.frames else []:
        curve = study.published.curve(task.games[0] if task.games else task.key, agent)  # pyrefly: ignore
        if curve is None:
            continue
        frames = (np.arange(curve.shape[1]) + 1) * FRAMES / 1e6
        # One published point past ours at least, so that the first minutes have something to be compared with.
        near = frames <= max(float(ours["frames"].max()) * 1.05, 2.0)
        mean, sd = curve.mean(0)[near], curve.std(0, ddof=1)[near]
        place = {"task": task.key, "combination": "", "game": ours["game"].iloc[0], "visit": 0, "source": agent}
        numbers = {"frames": frames[near], "value": mean, "low": mean - sd, "high": mean + sd}
        found.append(pd.DataFrame({**numbers, **place}))
    return pd.concat(found) if found else pd.DataFrame()


def draw(plotted: pd.DataFrame, study: Study) -> Figure:
    found = plotted.groupby(["task", "game"], observed=True, sort=False).size().index
    order = [(t, g) for t in study.tasks for g in dict.fromkeys([*t.games, ""]) if (t.key, g) in found]
    figure, axes = panels.many(len(order))
    for ax, (task, game) in zip(axes, order, strict=True):
        own = plotted[(plotted["task"] == task.key) & (plotted["game"] == game)]
        _panel(ax, own, task, study)
        several = len(task.games) > 1
        # Panels of one sequence have one axis, so that it is seen when each game was played.
        panels.from_zero(ax, plotted.loc[plotted["task"] == task.key, "frames" if task.frames else "task_index"])
        ax.set_title(f"{task.label}: {game.replace('_', ' ')}" if several else task.label)
    panels.legend(figure, study, plotted["combination"], more=panels.published_entries(plotted))
    return figure


def _panel(ax: Axes, own: pd.DataFrame, task: Task, study: Study) -> None:
    x = "frames" if task.frames else "task_index"
    panels.published(ax, own)
    for _, visit in own[own["source"] == "ours"].groupby("visit"):
        # A line must not run on through the frames in which another game was played.
        panels.bands(ax, visit, study, x)
    _levels(ax, task)
    ax.set_xlabel("frames (millions)" if task.frames else "iteration (0 is the first)")
    ax.set_ylabel("return an episode")
    ax.xaxis.set_major_locator(MaxNLocator(5))


def _levels(ax: Axes, task: Task) -> None:
    """Random play and a human; where they lie too close for two names, as one name between them."""
    known = [(name, level) for name, level in (("random", task.random), ("human", task.human)) if level is not None]
    for name, level in known:
        panels.level_line(ax, level, name)
    low, high = ax.get_ylim()
    if len(known) == 2 and abs(known[0][1] - known[1][1]) < 0.18 * (high - low):
        ax.texts[-2].set_visible(False)
        ax.texts[-1].set_text("random, human" if known[0][1] < known[1][1] else "human, random")
