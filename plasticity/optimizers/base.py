"""The family of optimisers."""

from __future__ import annotations

from typing import ClassVar

import optax

from plasticity.config import Config, config, traced
from plasticity.registry import Family


@config
class OptimizerConfig(Config):
    """Base of optimiser configs; every one has a learning rate."""

    name: ClassVar[str]
    reference: ClassVar[str] = ""

    lr: float = traced(1e-3, gt=0, positional=True, help="learning rate")

    def build(self, per_entry: bool = False) -> optax.GradientTransformationExtraArgs:
        """The transformation, learning rate and sign included.

        per_entry: keep whatever counts steps (Adam's bias correction) per parameter entry, so that a reset can
        restart the count of exactly the entries it touched.
        """
        raise TypeError(f"optimizer {self.name} builds nothing")


optimizers: Family[OptimizerConfig] = Family("optimizer", "plasticity.optimizers")
