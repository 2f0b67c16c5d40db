"""Our return beside the published one at a few numbers of frames: inside the published band, or outside.

The band is mean +- 3 standard deviations of the published seeds, and at least +- 15 % of the mean: the standard
deviation of five seeds is itself uncertain by a third, and two correct programs differ by more than the noise of
either. Ours is the mean over seeds, the same statistic. Both are means over all training episodes that ended in the
last 1M frames before the point (or in our last iteration, where that is longer). Inside means not shown to differ; it
is no proof of equality, and with one seed it is little evidence of anything.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.outcomes import per_task
from analysis.published import FRAMES, Published
from analysis.returns import RETURN, atari
from analysis.study import BESIDE, NONE, Study, Task

POINTS = (5, 10, 20, 40, 100, 195)  # millions of frames
DEVIATIONS, WIDENED = 3.0, 0.15
COLUMNS = ["task", "combination", "agent", "frames", "value", "n", "mean", "sd", "low", "high", "inside"]


def compare(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """One row a game, combination and point that a run has reached, with COLUMNS; empty without published curves.

    frames: millions. value: our mean over n seeds. mean, sd: published. low, high: the band. Combinations with
    mitigations are left out where there are some without.
    """
    rows = []
    if study.published is not None:
        plain = [c for c in study.combinations if c.partition(BESIDE)[0] == NONE]
        returns, weights = (per_task(frame, name) for name in (RETURN, "episodes"))
        weights = weights[["run_id", "task_index", "value"]].rename(columns={"value": "episodes"})
        returns = returns.merge(weights, on=["run_id", "task_index"], how="left")
        returns["reached"] = returns["run_id"].map(frame.groupby("run_id", observed=True)["task_index"].max())
        for task in atari(study):
            for combination in plain or study.combinations:
                own = returns[(returns["task"] == task.key) & (returns["combination"] == combination)]
                rows += _points(own, task, combination, study.agent(combination), study.published)
    return pd.DataFrame(rows, columns=COLUMNS)


def _points(own: pd.DataFrame, task: Task, combination: str, agent: str, published: Published) -> list[dict]:
    theirs = published.curve(task.games[0] if task.games else task.key, agent)
    if theirs is None or not task.frames or own.empty:
        return []
    end, wide, found = task.millions(own["task_index"]), max(FRAMES, task.frames) / 1e6, []
    for point in POINTS:
        # A part of a millionth of a frame, lest rounding decide which iterations are inside.
        inside = own[(end > point - wide + 1e-9) & (end <= point + 1e-9)]
        # Only runs that came as far as the point: what stops halfway through the window is earlier training.
        inside = inside[task.millions(inside["reached"].astype(int)) >= point - 0.5 * task.frames / 1e6]
        iterations = np.arange(theirs.shape[1]) + 1
        block = theirs[:, (iterations > point - wide * 1e6 / FRAMES) & (iterations <= point)]
        if inside.empty or not block.size:
            continue
        ours = inside.groupby("run_id", observed=True)[["value", "episodes"]].apply(_mean_of_episodes)
        each = block.mean(1)
        mean, sd = float(each.mean()), float(each.std(ddof=1))
        reach = max(DEVIATIONS * sd, WIDENED * abs(mean))
        value = float(ours.mean())
        found.append(
            {
                "task": task.key, "combination": combination, "agent": agent, "frames": point, "value": value,
                "n": len(ours), "mean": mean, "sd": sd, "low": mean - reach, "high": mean + reach,
                "inside": bool(abs(value - mean) <= reach),
            }
        )  # fmt: skip
    return found


def _mean_of_episodes(rows: pd.DataFrame) -> float:
    """Mean return of the episodes of some iterations; where episodes were not counted, of the iterations."""
    weights = rows["episodes"].fillna(1.0).to_numpy(float)
    return float(np.average(rows["value"], weights=weights if weights.sum() > 0 else None))
