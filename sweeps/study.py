"""A study: a question, the sweep that answers it at several scales, and the claims it decides.

Each study is one file in `sweeps/studies/` that defines `STUDY`. What it asks is data: it goes into study.json as
it is, so that the analysis of a results folder needs nothing else.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plasticity.claims import Claim, to_json
from plasticity.errors import unknown
from plasticity.record import SCHEMA
from sweeps import kinds
from sweeps.grid import Runs

#: The arm that is re-initialised at every task: what a network can learn that has nothing behind it.
FRESH = "full_reset"


@dataclass(frozen=True)
class Scale:
    """A size at which a study is run. cost: what to expect, in words, with the machine it was measured on."""

    grid: Runs
    cost: str
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Study:
    """name: on the command line. title, description: of the report. task_labels: by key, what axes and tables say.

    factors: spec text -> label, the mitigations whose combinations are compared. reference: spec text of the
    arm that is re-initialised at every task, or None.
    """

    name: str
    title: str
    description: str
    scales: Mapping[str, Callable[[], Scale]]
    task_labels: Mapping[str, str] = field(default_factory=dict)
    factors: Mapping[str, str] = field(default_factory=dict)
    reference: str | None = None

    def scale(self, name: str) -> Scale:
        """The scale called `name`; a `UserError` with the nearest match if there is none."""
        if name not in self.scales:
            raise unknown(f"scale of study {self.name}", name, self.scales)
        return self.scales[name]()

    def to_json(self, scale: str, runs: Sequence[kinds.Run]) -> dict[str, Any]:
        """What study.json says, without time and command line."""
        kind = kinds.only(runs)
        return {
            "schema": SCHEMA,
            **({"kind": kind.name} if kind.name else {}),
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "scale": scale,
            "tasks": [self._task_json(kind, run) for run in {run.key: run for run in reversed(runs)}.values()][::-1],
            "factors": [{"spec": text, "label": label} for text, label in self.factors.items()],
            "reference": self.reference,
            "claims": [to_json(claim) for claim in self.scale(scale).claims],
            "runs": len(runs),
        }

    def _task_json(self, kind: kinds.Kind, run: kinds.Run) -> dict[str, Any]:
        found = kind.task_json(run)
        return {**found, "label": self.task_labels.get(run.key, found["label"])}


def studies() -> dict[str, Study]:
    """All studies by name, discovered from `sweeps/studies/`."""
    package = importlib.import_module("sweeps.studies")
    modules = [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    return {module.STUDY.name: module.STUDY for module in modules}


def get(name: str) -> Study:
    """The study called `name`; a `UserError` with the nearest match if there is none."""
    found = studies()
    if name not in found:
        raise unknown("study", name, found)
    return found[name]
