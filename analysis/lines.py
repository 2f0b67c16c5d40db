"""Which combinations are drawn as lines where there are too many to tell apart."""

from __future__ import annotations

import pandas as pd

from analysis.outcomes import late
from analysis.stats import iqm
from analysis.study import BESIDE, NONE, Study

MOST = 12


def few(frame: pd.DataFrame, study: Study) -> tuple[pd.DataFrame, str]:
    """The rows of at most `MOST` combinations, and what to say about the others; all of them where they are few.

    Always shown are no mitigation and the fresh-network reference; the other lines are those that are best by their
    late score on each task kind, in turns.
    """
    present = [c for c in study.combinations if (frame["combination"] == c).any()]
    if len(present) <= MOST:
        return frame, ""
    chosen = [c for c in present if study.is_reference(c) or c.partition(BESIDE)[0] == NONE]
    values = late(frame, study)
    values = values[~values["combination"].isin(chosen)]
    scores = values.groupby(["task", "combination"], observed=True)["value"].apply(lambda x: float(iqm(x.to_numpy())))
    best = [own.droplevel("task").sort_values(ascending=False).index for _, own in scores.groupby(level="task")]
    for place in range(max((len(own) for own in best), default=0)):
        for own in best:
            if place < len(own) and own[place] not in chosen and len(chosen) < MOST:
                chosen.append(str(own[place]))
    note = (
        f"Drawn are no mitigation, the fresh network and the best by late score, {len(chosen)} of {len(present)} "
        "combinations; all numbers: python -m analysis export."
    )
    return frame[frame["combination"].isin(chosen)], note
