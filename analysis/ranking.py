"""Which combination kept the network most trainable, by how much against no mitigation, and how certain that is.

Trainability is the late score: `end_score` over the last fifth of the tasks, IQM over seeds, averaged over task
kinds with equal weight. Choosing the best of k combinations flatters it, so its gain over no mitigation carries
an interval at level 1 - alpha/k (Bonferroni), and `share_first` says how often it is first when seeds are
resampled jointly for all combinations. The fresh-network reference is a yardstick and does not compete.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import stats
from analysis.outcomes import late, paired
from analysis.study import NONE, Study

DRAWS = 4_000


@dataclass(frozen=True)
class Standing:
    """One combination over all task kinds, with differences paired by seed.

    gain: minus no mitigation. gap: minus the fresh network. behind: minus the best combination.
    """

    combination: str
    score: stats.Estimate
    gain: stats.Estimate | None
    gap: stats.Estimate | None
    behind: stats.Estimate | None
    share_first: float


@dataclass(frozen=True)
class Ranking:
    """Combinations with all task kinds, best first; `incomplete` ones lack runs; `tasks` are those compared."""

    standings: tuple[Standing, ...]
    references: dict[str, stats.Estimate]
    incomplete: tuple[str, ...]
    tasks: tuple[str, ...]

    @property
    def best(self) -> Standing | None:
        return self.standings[0] if self.standings else None


def rank(frame: pd.DataFrame, study: Study) -> Ranking:
    """Rank the combinations of a study by their late score."""
    values = late(frame, study)
    present = {str(c): set(g["task"]) for c, g in values.groupby("combination", observed=True)}
    tasks = [task.key for task in study.tasks if any(task.key in seen for seen in present.values())]
    complete = [c for c in study.combinations if present.get(c, set()) >= set(tasks)] if tasks else []
    rivals = [c for c in complete if not study.is_reference(c)]
    score = {c: _over_tasks(values[values["combination"] == c], tasks, study.level) for c in complete}
    rivals.sort(key=lambda c: -score[c].value)
    alpha = (1 - study.level) / max(len(rivals) - 1, 1)
    share = _share_first(values, rivals, tasks)

    def difference(one: str, other: str, level: float) -> stats.Estimate | None:
        if other not in complete or one == other:
            return None
        return _over_tasks(paired(values, one, other), tasks, level)

    standings = tuple(
        Standing(
            combination=c,
            score=score[c],
            gain=difference(c, study.sibling(c, NONE), 1 - alpha),
            gap=difference(c, study.sibling(c, study.reference or ""), study.level),
            behind=difference(c, rivals[0], 1 - alpha),
            share_first=share.get(c, 0.0),
        )
        for c in rivals
    )
    incomplete = tuple(c for c in study.combinations if c not in complete)
    references = {c: score[c] for c in complete if study.is_reference(c)}
    return Ranking(standings, references, incomplete, tuple(tasks))


def _over_tasks(values: pd.DataFrame, tasks: list[str], level: float) -> stats.Estimate:
    return stats.stratified([values.loc[values["task"] == t, "value"].to_numpy() for t in tasks], level)


def _share_first(values: pd.DataFrame, rivals: list[str], tasks: list[str]) -> dict[str, float]:
    """Share of resamples of the seeds (the same for all rivals) in which each rival is first; ties are split."""
    total = np.zeros((len(rivals), DRAWS))
    for k, task in enumerate(tasks):
        own = values[(values["task"] == task) & values["combination"].isin(rivals)]
        table = own.pivot_table(index="combination", columns="seed", values="value", observed=True)
        table = table.reindex(rivals).dropna(axis=1)
        if table.shape[1] < 2:
            return {}
        seeds = table[sorted(table.columns)].to_numpy()
        picks = np.random.default_rng([k, 20150507]).integers(0, seeds.shape[1], (DRAWS, seeds.shape[1]))
        total += stats.iqm(seeds[:, picks]) / len(tasks)
    if not len(tasks) or not rivals:
        return {}
    first = total >= total.max(0) - 1e-12
    return dict(zip(rivals, (first / first.sum(0)).mean(1).tolist(), strict=True))
