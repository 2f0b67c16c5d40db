"""Kinds of runs that a sweep can hold: supervised streams (`tasks`) and agents (`rl`). One module each.

Grouping, padding, storing and executing are the same for all; a kind says what is particular. A module is imported
when a run of its kind is met, so a sweep over tasks needs no games.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from plasticity.errors import UserError
from plasticity.folder import Options

if TYPE_CHECKING:
    from sweeps.grouping import Group

#: A `sweeps.run.Run` or a `rl.run.Run`: both have `id`, `key`, `label`, `seed`, `config`, `method` and `kind`.
Run = Any


class Cost(NamedTuple):
    """Of a group: work over all runs in the kind's unit, rough seconds of one core or device, MiB of state and data."""

    work: int
    seconds: float
    state_mib: float
    data_mib: float


class Kind(Protocol):
    """What a module of this folder defines under `KIND`.

    name: in study.json. unit: of work, for the progress bar. lanes: most runs in a group where the user does not say,
    by backend.
    """

    name: str
    unit: str
    lanes: Mapping[str, int]

    def from_config(self, config: dict[str, Any]) -> Run:
        """The run whose `config` this is."""
        ...

    def common(self, run: Run) -> Any:
        """What all runs of a group have in common beside their method; hashable."""
        ...

    def structure(self, run: Run) -> Any:
        """What decides about compilation beside method and shape; hashable."""
        ...

    def task_json(self, run: Run) -> dict[str, Any]:
        """The run's task in study.json; `label` is the study's to change."""
        ...

    def cost(self, group: Group) -> Cost:
        """What a group will cost. Nothing is computed; raises `UserError` for what cannot be."""
        ...

    def compute(self, path: Path, group: Group, options: Options) -> bool:
        """Compute a group in its folder to its end; see `plasticity.folder.compute`."""
        ...


def of(run: Run) -> Kind:
    """The kind of a run."""
    return importlib.import_module(f"{__name__}.{run.kind}").KIND


def from_config(config: dict[str, Any]) -> Run:
    """The run whose `config` this is, of whichever kind."""
    name = "agents" if "agent" in config else "supervised"
    return importlib.import_module(f"{__name__}.{name}").KIND.from_config(config)


def only(runs: Sequence[Run]) -> Kind:
    """The one kind of some runs. Raises `UserError` if there are several, or none."""
    names = sorted({run.kind for run in runs})
    if len(names) != 1:
        raise UserError(
            f"a study is of one kind of runs, either tasks or games; got {' and '.join(names) or 'no runs'}"
        )
    return of(runs[0])


def computed(path: Path, options: Options) -> bool:
    """Compute a laid-out group folder to its end, whatever its kind; False if it failed."""
    from sweeps.store import load_group

    group = load_group(path)
    return of(group.first).compute(path, group, options)


def measured(runs: Sequence[Run], also: str) -> list[Run]:
    """The runs with further diagnostics, names with spaces between. They are other runs, with ids of their own."""
    if not also.strip():
        return list(runs)
    return [replace(run, measure=replace(run.measure, also=also)) for run in runs]
