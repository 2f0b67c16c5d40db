"""Human-normalised late scores of every combination, pooled over games: the table of aggregates."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis import pooled
from analysis.outcomes import late
from analysis.returns import atari
from analysis.study import Study

STATISTICS: dict[str, pooled.Statistic] = {
    "IQM": pooled.pooled_iqm,
    "Median": pooled.median,
    "Mean": pooled.mean,
    "Optimality gap": pooled.optimality_gap,
}


def late_strata(frame: pd.DataFrame, study: Study) -> dict[str, list[np.ndarray]]:
    """Late scores of every combination, an array a game, seeds in order; only of combinations that have every game."""
    games = [task.key for task in atari(study)]
    values = late(frame, study)
    values = values[values["task"].isin(games)].sort_values("seed", kind="stable")
    every = [key for key in games if (values["task"] == key).any()]
    found = {}
    for c in study.combinations:
        own = values[values["combination"] == c]
        strata = [own.loc[own["task"] == key, "value"].to_numpy(float) for key in every]
        if strata and all(len(x) for x in strata):
            found[c] = strata
    return found


def aggregates(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """One row a combination and statistic: combination, statistic, value, low, high, n (runs), games."""
    rows = []
    for c, strata in late_strata(frame, study).items():
        for name, statistic in STATISTICS.items():
            e = pooled.estimate(strata, statistic, study.level)
            place = {"combination": c, "statistic": name, "value": e.value, "low": e.low, "high": e.high}
            rows.append({**place, "n": sum(x.size for x in strata), "games": len(strata)})
    return pd.DataFrame(rows, columns=["combination", "statistic", "value", "low", "high", "n", "games"])
