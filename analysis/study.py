"""What a study is, as analysis sees it: tasks, factors, claims, runs; names and order of the combinations.

Vocabulary: a *combination* is one set of mitigations, in canonical spec text (`layer_norm+l2(1e-3)`), with `@
key=value` behind it where a study also varies something else (network, optimiser). The *reference* is the
combination that starts from a fresh network at every task: it cannot lose plasticity, and shows what is there to
be kept. In a reinforcement-learning study (`kind` "rl") a task is an iteration and a task kind a game; see
`analysis.wording`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.published import Published
from analysis.stats import LEVEL
from analysis.wording import Terms, terms
from plasticity.claims import Claim
from plasticity.spec import parse

NONE = "none"
FRESH = "full_reset"
BESIDE = " @ "


@dataclass(frozen=True)
class Task:
    """A task kind, or a game, of the study.

    steps: optimiser updates per task, or those of each; None where that is not known beforehand. chance: score of
    guessing or of the random policy, where it is known. bounded: scores lie in [0, 1]. worst: score of a diverged run.
    Of games: frames per iteration, the games in their order, raw returns of random play and of a human where known,
    iterations between switches of game (0: none; a supervised stream switches at every task).
    """

    key: str
    label: str
    spec: str = ""
    steps: int | tuple[int, ...] | None = None
    num_tasks: int = 0
    score_label: str = "end-of-task score"
    chance: float | None = None
    bounded: bool = True
    worst: float = 0.0
    frames: int | None = None
    games: tuple[str, ...] = ()
    random: float | None = None
    human: float | None = None
    switch_every: int = 1

    def before(self, index: Any) -> Any:
        """Updates in all tasks before one, or before each of an array; None where that is not known."""
        if isinstance(self.steps, tuple):
            return np.cumsum([0, *self.steps])[index]
        return index * self.steps if self.steps else None

    @property
    def late(self) -> int:
        """Number of tasks that count as late: the last fifth, at least one."""
        return max(1, round(self.num_tasks / 5))

    @property
    def normalised(self) -> bool:
        """Whether the score is (return - random) / (human - random), so that games can be pooled."""
        return self.score_label.lower().startswith("human-normalised")

    @property
    def worst_return(self) -> float | None:
        """The raw return that stands for `worst`: of random play, or `worst` itself where scores are raw returns."""
        return self.random if self.normalised else self.worst

    def clipped(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table with its limits cut off where the score itself ends."""
        return table.assign(low=table["low"].clip(0, 1), high=table["high"].clip(0, 1)) if self.bounded else table

    def millions(self, task_index: pd.Series) -> pd.Series:
        """Environment frames, in millions, at the end of iterations; NaN where frames are not counted."""
        return (task_index + 1) * (self.frames / 1e6 if self.frames else math.nan)

    def game_at(self, task_index: int) -> str:
        """The game that an iteration plays; empty where there is none."""
        if not self.games:
            return ""
        return self.games[task_index // self.switch_every % len(self.games)] if self.switch_every else self.games[0]


@dataclass(frozen=True)
class Study:
    """One study, or several read together. `runs` has one row a run (see `analysis.load`).

    kind: "rl" or "". published: curves of others to compare with, where the user points to them.
    """

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
    kind: str = ""
    published: Published | None = None

    @property
    def rl(self) -> bool:
        """Whether this is a reinforcement-learning study."""
        return self.kind == "rl"

    @property
    def terms(self) -> Terms:
        """What its parts are called."""
        return terms(self.kind)

    @property
    def comparable(self) -> bool:
        """Whether scores of different task kinds share a scale, so that they may be averaged; raw returns do not."""
        return len(self.tasks) < 2 or all(t.bounded for t in self.tasks) or all(t.normalised for t in self.tasks)

    def agent(self, combination: str) -> str:
        """Name of the agent of a combination, without its settings; empty in a supervised study."""
        configs = self.runs.loc[self.runs["combination"] == combination, "config"]
        return str(configs.iloc[0].get("agent", "")).partition("(")[0] if len(configs) else ""

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
        if self.rl and beside and (self.runs["mitigations"] == NONE).all():
            return beside.replace("agent=", "")  # agents are compared, and mitigations are not the question
        return f"{words} ({beside.replace('agent=', '')})" if beside else words


def split_terms(mitigations: str) -> list[str]:
    """The components of a mitigations text, each as its own text; `none` gives an empty list."""
    bounds = [*(term.position for term in parse(mitigations)), len(mitigations)]
    return [mitigations[i:j].strip().removesuffix("+").strip() for i, j in pairwise(bounds)]
