"""Decide the claims of a study from its records; the rules are those of `plasticity.claims`.

A contrast gives one number per seed (so it is paired by seed), and its interval decides:

    reproduced      the whole interval lies on the claimed side of the margin
    not reproduced  the whole interval lies on the other side
    undecided       the interval contains the margin, or fewer than 3 seeds have all runs of the contrast

`AllOf` and `AnyOf` are Kleene's and / or: the least and the greatest of not reproduced < undecided < reproduced.
Under an `AnyOf` of k parts the level of every part is raised to 1 - alpha/k (Bonferroni), for there one may
choose. Runs that diverged count with the worst score; seeds with runs that are missing, unfinished or failed are
left out and counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import pandas as pd

from analysis import stats
from analysis.outcomes import by_seed
from analysis.study import Study
from plasticity.claims import AnyOf, Claim, Contrast, Test, Verdict

FEWEST_SEEDS = 3
_ORDER: tuple[Verdict, ...] = ("not reproduced", "undecided", "reproduced")


@dataclass(frozen=True)
class Decided:
    """A decided test. A contrast has an estimate, a tree has parts. lost: seeds left out; note: what to know."""

    kind: str
    name: str
    verdict: Verdict
    parts: tuple[Decided, ...] = ()
    estimate: stats.Estimate | None = None
    margin: float = 0.0
    claimed: str = ""
    quantity: str = ""
    lost: int = 0
    diverged: int = 0
    note: str = ""
    values: dict[int, float] = field(default_factory=dict, repr=False)

    def leaves(self) -> Iterator[Decided]:
        """The contrasts, from left to right."""
        if self.estimate is not None:
            yield self
        for part in self.parts:
            yield from part.leaves()


@dataclass(frozen=True)
class DecidedClaim:
    """A claim with its decided test."""

    claim: Claim
    test: Decided

    @property
    def verdict(self) -> Verdict:
        return self.test.verdict


def decide_all(frame: pd.DataFrame, study: Study) -> list[DecidedClaim]:
    """Every claim of the study, decided, in the order of the study."""
    return [DecidedClaim(claim, decide(claim.test, frame, study)) for claim in study.claims]


def decide(test: Test, frame: pd.DataFrame, study: Study, level: float | None = None) -> Decided:
    """Decide one test at a level (default: that of the study)."""
    level = study.level if level is None else level
    if isinstance(test, Contrast):
        return _contrast(test, frame, study, level)
    choose = isinstance(test, AnyOf)
    inner = 1 - (1 - level) / max(len(test.parts), 1) if choose else level
    parts = tuple(decide(part, frame, study, inner) for part in test.parts)
    kind = type(test).__name__
    if not parts:
        return Decided(kind, test.name, "undecided", note="has no parts")
    rank = (max if choose else min)(_ORDER.index(part.verdict) for part in parts)
    return Decided(kind, test.name, _ORDER[rank], parts)


def judge(low: float, high: float, claimed: str, margin: float) -> Verdict:
    """The verdict of an interval; NaN limits are undecided."""
    above, below = low > margin, high < margin
    if above or below:
        return "reproduced" if above == (claimed == "greater") else "not reproduced"
    return "undecided"


def _contrast(test: Contrast, frame: pd.DataFrame, study: Study, level: float) -> Decided:
    columns, notes = [], []
    for weight, outcome in test.terms:
        try:
            column = by_seed(frame, study, outcome)
        except LookupError as error:
            column = pd.Series(dtype=float)
            notes.append(str(error))
        if column.empty and not notes:
            notes.append(f"no complete run of {outcome.task} with {outcome.mitigations}")
        columns.append(weight * column)
    # Seeds that any run of this contrast has, finished or not, are the seeds it was meant to have.
    pairs = {(o.task, o.mitigations) for _, o in test.terms}
    meant = study.runs[[p in pairs for p in zip(study.runs["task"], study.runs["mitigations"], strict=True)]]
    values = pd.concat(columns, axis=1).dropna().sum(axis=1) if columns else pd.Series(dtype=float)
    lost = len(set(meant["seed"]) - set(values.index))
    estimate = stats.estimate(values.to_numpy(), level)
    verdict: Verdict = "undecided"
    if len(values) >= FEWEST_SEEDS:
        verdict = judge(estimate.low, estimate.high, test.claimed, test.margin)
    else:
        notes.append(f"{len(values)} complete seeds, at least {FEWEST_SEEDS} are needed")
    diverged = int(((meant["status"] == "diverged") & meant["seed"].isin(values.index)).sum())
    if lost and len(values) >= FEWEST_SEEDS:
        notes.append(f"{lost} seed{'s' * (lost > 1)} left out (runs missing, unfinished or failed)")
    if diverged:
        notes.append(f"{diverged} diverged run{'s' * (diverged > 1)} counted as {study.terms.worst}")
    return Decided(
        kind="Contrast",
        name=test.name,
        verdict=verdict,
        estimate=estimate,
        margin=test.margin,
        claimed=test.claimed,
        quantity=_quantity(test),
        lost=lost,
        diverged=diverged,
        note="; ".join(dict.fromkeys(notes)),
        values={int(k): float(v) for k, v in values.items() if math.isfinite(v)},  # pyrefly: ignore
    )


def _quantity(test: Contrast) -> str:
    """What the contrast is a difference of; all scores are one quantity."""
    metrics = {"score" if outcome.metric.endswith("_score") else outcome.metric for _, outcome in test.terms}
    return " and ".join(sorted(name.replace("_", " ") for name in metrics))
