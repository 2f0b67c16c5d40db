"""Raw returns and human-normalised scores of games, against environment frames."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.outcomes import END, per_task
from analysis.stats import summarise
from analysis.study import Study, Task

RETURN = "return"
BY = ["task", "combination", "task_index"]


def curves(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """IQM and interval of the raw return: task, combination, task_index, value, low, high, n, frames, game, visit.

    frames: millions at the end of the iteration. visit: counts the stretches between switches of game.
    """
    table = summarise(per_task(frame, RETURN), BY, level=study.level)
    return placed(table, study)


def placed(table: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Add frames (millions), game and visit to a table with task and task_index."""
    table = table.assign(frames=np.nan, game="", visit=0)
    for task in study.tasks:
        own = (table["task"] == task.key).to_numpy()
        index = table.loc[own, "task_index"].astype(int)
        table.loc[own, "frames"] = task.millions(index)
        table.loc[own, "game"] = [task.game_at(i) for i in index]
        table.loc[own, "visit"] = index // task.switch_every if task.switch_every else 0
    return table


def atari(study: Study) -> list[Task]:
    """The games whose scores are human-normalised, so that they can be pooled; sequences of games are none."""
    return [t for t in study.tasks if study.rl and t.normalised and len(t.games) < 2]


def held(frame: pd.DataFrame, task: Task, combination: str) -> pd.DataFrame:
    """Scores of a combination in one game, one row an iteration and a column a seed.

    An iteration in which no episode ended has the score of the one before it. Behind the last iteration of a run there
    is nothing.
    """
    own = frame[(frame["task"] == task.key) & (frame["combination"] == combination)]
    reached = own.groupby("seed")["task_index"].max()
    rows = per_task(own, END)
    if rows.empty:
        return pd.DataFrame()
    table = rows.pivot_table(index="task_index", columns="seed", values="value").sort_index(axis=1)
    table = table.reindex(range(int(reached.max()) + 1)).ffill()
    return table.where(table.index.to_numpy()[:, None] <= reached[table.columns].to_numpy()[None])
