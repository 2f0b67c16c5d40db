"""What a study is, as analysis sees it: tasks, factors, claims, runs; names and order of the combinations.

Vocabulary: a *combination* is one set of mitigations, in canonical spec text (`layer_norm+l2(1e-3)`), with `@
key=value` behind it where a study also varies something else (network, optimiser). The *reference* is the
combination that starts from a fresh network at every task: it cannot lose plasticity, and shows what is there to
be kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.stats import LEVEL
from plasticity.claims import Claim
from plasticity.spec import parse

NONE = "none"
FRESH = "full_reset"
BESIDE = " @ "


@dataclass(frozen=True)
class Task:
    """A task kind of the study. steps: optimiser updates per task. chance: score of guessing, where it is known."""

    key: str
    label: str
    spec: str = ""
    steps: int | None = None
    num_tasks: int = 0
    score_label: str = "end-of-task score"
    chance: float | None = None

    @property
    def late(self) -> int:
        """Number of tasks that count as late: the last fifth, at least one."""
        return max(1, round(self.num_tasks / 5))


@dataclass(frozen=True)
class Study:
    """One study, or several read together. `runs` has one row a run (see `analysis.load`)."""

    name: str
    paths: tuple[Path, ...]
    title: str
    description: str
    scale: str
    commands: tuple[tuple[str, ...], ...]
    tasks: tuple[Task, ...]
    factors: tuple[tuple[str, str], ...]
    reference: str | None
    claims: tuple[Claim, ...]
    planned: int
    runs: pd.DataFrame = field(repr=False)
    provenance: tuple[tuple[str, dict[str, Any]], ...] = field(repr=False, default=())
    level: float = LEVEL

    def task(self, key: str) -> Task:
        """The task called `key`."""
        return next(task for task in self.tasks if task.key == key)

    @property
    def combinations(self) -> list[str]:
        """Combinations that have runs: no mitigation, single factors, pairs, ..., the reference last."""
        return sorted(self.runs["combination"].unique(), key=self._rank)

    def _rank(self, combination: str) -> tuple:
        mitigations, _, beside = combination.partition(BESIDE)
        known = [spec for spec, _ in self.factors]
        terms = split_terms(mitigations)
        places = [known.index(t) if t in known else len(known) for t in terms]
        return (mitigations == self.reference, len(terms), places, mitigations, beside)

    def is_reference(self, combination: str) -> bool:
        """Whether the combination is the fresh-network reference, whatever else varies beside it."""
        return self.reference is not None and combination.partition(BESIDE)[0] == self.reference

    def sibling(self, combination: str, mitigations: str) -> str:
        """The combination with other mitigations and the same beside them."""
        _, mark, beside = combination.partition(BESIDE)
        return mitigations + mark + beside

    def label(self, combination: str) -> str:
        """The combination in words, as legends and tables show it."""
        mitigations, _, beside = combination.partition(BESIDE)
        if mitigations == self.reference:
            words = "fresh network"
        else:
            names = dict(self.factors)
            terms = split_terms(mitigations)
            words = " + ".join(names.get(term, term.replace("_", " ")) for term in terms) or "no mitigation"
        return f"{words} ({beside})" if beside else words


def split_terms(mitigations: str) -> list[str]:
    """The components of a mitigations text, each as its own text; `none` gives an empty list."""
    bounds = [*(term.position for term in parse(mitigations)), len(mitigations)]
    return [mitigations[i:j].strip().removesuffix("+").strip() for i, j in pairwise(bounds)]
