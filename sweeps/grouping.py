"""From runs to groups: which runs share a compiled program, and which go through it together.

Two runs can share a program when their configs have the same tree structure (static fields equal, strengths free).
To make that happen more often, a run that lacks a mitigation which others have is padded with its neutral element,
which equals absence: {layer norm} x {L2} is then two programs, not four. Only members are padded that say so: they
cost next to nothing at zero strength, and no diagnostic depends on them.

A group is a full crossing of methods and seeds on one task, at most `lanes` runs: too many fall out of cache on a CPU
and out of memory on a GPU. Groups of one program are cut to one shape where that is possible, since every shape is a
compilation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any

import jax

from plasticity.identity import digest
from plasticity.method import Method, padded
from sweeps import kinds
from sweeps.kinds import Run


@dataclass(frozen=True)
class Group:
    """Runs that are computed together: `runs[seed][method]`. `padded` are the methods as they are compiled."""

    runs: tuple[tuple[Run, ...], ...]
    padded: tuple[Method, ...]

    @cached_property
    def id(self) -> str:
        """Hash of the run ids in lane order."""
        return digest([run.id for run in self.flat])

    @property
    def flat(self) -> list[Run]:
        """All runs, seeds outermost."""
        return [run for row in self.runs for run in row]

    @property
    def first(self) -> Run:
        return self.runs[0][0]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(row[0].seed for row in self.runs)

    @property
    def program(self) -> Any:
        """What decides about compilation: structure of the runs and their methods, and the shape of the group."""
        return kinds.of(self.first).structure(self.first), jax.tree.structure(self.padded[0]), self.shape

    @property
    def shape(self) -> tuple[int, int]:
        """(seeds, methods)."""
        return len(self.runs), len(self.runs[0])


def groups_of(runs: Sequence[Run], lanes: int) -> list[Group]:
    """Cut runs into groups of at most `lanes`, in the order of their first run."""
    return [group for bucket in _by(runs, _kind) for group in _groups_of_kind(bucket, lanes)]


def _kind(run: Run) -> Any:
    """What all runs of a group have in common whatever their mitigations."""
    optimizer = jax.tree.structure(run.method.optimizer)
    return kinds.of(run).common(run), run.method.network, optimizer


def _groups_of_kind(runs: Sequence[Run], lanes: int) -> Iterator[Group]:
    methods = list(dict.fromkeys(run.method for run in runs))
    wide = dict(zip(methods, padded(methods), strict=True))
    cells = {(run.method, run.seed): run for run in runs}
    seeds = {m: tuple(run.seed for run in runs if run.method == m) for m in methods}
    # Methods of one structure whose missing seeds are the same (after a partial run they may differ).
    for alike in _by(methods, lambda m: (jax.tree.structure(wide[m]), seeds[m])):
        for columns, rows in _blocks(alike, seeds[alike[0]], lanes):
            crossing = tuple(tuple(cells[m, s] for m in columns) for s in rows)
            yield Group(crossing, tuple(wide[m] for m in columns))


def programs(groups: Iterable[Group]) -> int:
    """How many programs will be compiled for these groups."""
    return len({group.program for group in groups})


def _blocks(methods: Sequence[Method], seeds: Sequence[int], lanes: int):
    """Cut a crossing of methods and seeds into blocks of at most `lanes`, as even as possible."""
    wide = ceil(len(methods) / ceil(len(methods) / lanes))
    tall = max(1, lanes // wide)
    tall = ceil(len(seeds) / ceil(len(seeds) / tall))
    for j in range(0, len(methods), wide):
        for i in range(0, len(seeds), tall):
            yield methods[j : j + wide], seeds[i : i + tall]


def _by(items: Iterable[Any], key) -> list[list[Any]]:
    """Items gathered by key, in the order of first appearance."""
    found: dict[Any, list[Any]] = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return list(found.values())
