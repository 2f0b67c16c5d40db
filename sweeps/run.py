"""One run as text: what it is called, what it hashes to, and the configs it resolves to.

A run is named by its canonical config. Its id hashes the *resolved* config, with every default written out, so that
a change of a default is a change of id and results of different programs are never mixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from plasticity import spec
from plasticity.identity import digest, resolved
from plasticity.method import Method
from plasticity.mitigations import compose
from plasticity.mitigations.base import mitigations
from plasticity.networks.base import networks
from plasticity.optimizers.base import optimizers
from tasks.base import Task, tasks
from tasks.measure import Measure


@dataclass(frozen=True)
class Run:
    """A task, what learns it, how it is measured, and a seed. `key` is the task's name within its study."""

    kind: ClassVar[str] = "supervised"

    key: str
    task: Task
    method: Method
    measure: Measure
    seed: int

    @classmethod
    def of(
        cls,
        task: str,
        network: str = "mlp",
        optimizer: str = "adam",
        mitigation: str = "none",
        seed: int = 0,
        key: str = "",
        measure: Measure | None = None,
    ) -> Run:
        """A run from spec texts. Raises `UserError` for anything that is not a possible run."""
        method = Method(
            spec.build_one(network, networks),
            spec.build_one(optimizer, optimizers),
            compose.canonical(spec.build(mitigation, mitigations)),
        )
        built = spec.build_one(task, tasks)
        return cls(key or built.name, built, method, measure or Measure(), seed)

    @property
    def label(self) -> str:
        """The mitigations in canonical order, `none` if there are none."""
        return spec.to_text(self.method.mitigations)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The canonical config, as spec text: what is written beside the results."""
        return {
            "task": self.key,
            "task_spec": spec.to_text(self.task),
            "network": spec.to_text(self.method.network),
            "optimizer": spec.to_text(self.method.optimizer),
            "mitigations": self.label,
            "measure": spec.to_text(self.measure),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Run:
        """The run whose `config` this is."""
        measure = spec.parse(config["measure"])[0]
        return cls.of(
            config["task_spec"],
            config["network"],
            config["optimizer"],
            config["mitigations"],
            config["seed"],
            config["task"],
            Measure(**measure.kwargs),
        )

    @cached_property
    def id(self) -> str:
        """12 hex digits of the SHA-256 of the resolved config. The task's key is a label and no part of it."""
        method = self.method
        parts = {
            "task": resolved(self.task),
            "network": resolved(method.network),
            "optimizer": resolved(method.optimizer),
            "mitigations": [resolved(m) for m in method.mitigations],
            "measure": resolved(self.measure),
            "seed": self.seed,
        }
        return digest(parts)
