"""Grids: lists of runs as data, from axes, products, unions and all subsets of a set of mitigations.

    Grid(task=["label_reset", "target_drift"], mitigations=subsets("layer_norm", "l2(1e-3)"), seeds=8)

is the full product of its axes. `a + b` is the union of two grids (a run that is in both is one run).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations, product
from typing import Any, Protocol

from plasticity.errors import UserError
from sweeps.run import Run
from tasks.measure import Measure


def subsets(*members: str) -> tuple[str, ...]:
    """All 2^n combinations of mitigation specs, smallest first, as spec texts; the empty one is `none`."""
    chosen = chain.from_iterable(combinations(members, size) for size in range(len(members) + 1))
    return tuple("+".join(combination) or "none" for combination in chosen)


class Runs(Protocol):
    """Anything that can list its runs."""

    def runs(self) -> list[Any]:
        """The runs in order, each id once. Raises `UserError` for a bad spec or an empty axis."""
        ...


@dataclass(frozen=True)
class Grid:
    """Axes of spec texts. task: texts, or a mapping of a key within the study to text. seeds: so many, from 0."""

    task: Sequence[str] | Mapping[str, str]
    mitigations: Sequence[str] = ("none",)
    network: Sequence[str] = ("mlp",)
    optimizer: Sequence[str] = ("adam",)
    seeds: int = 5
    measure: Measure = Measure()  # noqa: RUF009 - frozen
    others: tuple[Grid, ...] = ()

    def __add__(self, other: Grid) -> Grid:
        return replace(self, others=(*self.others, other))

    def runs(self) -> list[Run]:
        """The runs in order, each id once. Raises `UserError` for a bad spec or an empty axis."""
        every = chain(self._product(), *(grid.runs() for grid in self.others))
        return list({run.id: run for run in every}.values())

    def _product(self) -> Iterator[Run]:
        for axis in ("task", "mitigations", "network", "optimizer"):
            if not getattr(self, axis):
                raise UserError(f"the grid's axis {axis!r} is empty")
        if self.seeds < 1:
            raise UserError(f"seeds must be >= 1, got {self.seeds}")
        keyed = self.task.items() if isinstance(self.task, Mapping) else [(_key(t), t) for t in self.task]
        axes = product(keyed, self.network, self.optimizer, self.mitigations)
        for (key, task), network, optimizer, mitigation in axes:
            first = Run.of(task, network, optimizer, mitigation, 0, key, self.measure)
            for seed in range(self.seeds):
                yield Run(first.key, first.task, first.method, first.measure, seed)


def _key(task: str) -> str:
    """A task is known by its name where a grid names it once; the whole spec tells two of one name apart."""
    return task.replace(" ", "")
