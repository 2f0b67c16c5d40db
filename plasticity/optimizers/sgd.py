"""Stochastic gradient descent with optional heavy-ball momentum."""

from __future__ import annotations

import optax

from plasticity.config import traced
from plasticity.optimizers.base import OptimizerConfig, optimizers


@optimizers.register("sgd")
class SGD(OptimizerConfig):
    """Gradient descent: m <- momentum m + g; theta <- theta - lr m. No step count to keep."""

    lr: float = traced(1e-2, gt=0, positional=True, help="learning rate")
    momentum: float = traced(0.0, ge=0, le=1, absent=0.0, help="decay of the velocity")

    def build(self, per_entry: bool = False) -> optax.GradientTransformationExtraArgs:
        scale = optax.scale(-self.lr)
        if isinstance(self.momentum, float) and self.momentum == 0:
            # A velocity as large as the parameters would be written and read in every update.
            return optax.with_extra_args_support(scale)
        return optax.with_extra_args_support(optax.chain(optax.trace(decay=self.momentum), scale))
