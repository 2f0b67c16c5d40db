"""Decoupled weight decay (AdamW, Loshchilov & Hutter 2019, arXiv:1711.05101)."""

from __future__ import annotations

from typing import Any, Self

import jax
import optax

from plasticity.config import traced
from plasticity.mitigations.base import Mitigation, Setting, mitigations
from plasticity.network import norm_affine_mask


@mitigations.register("weight_decay")
class WeightDecay(Mitigation):
    """theta <- theta - lr strength theta, beside the optimiser's step; norm scales and offsets do not decay.

    Unlike `l2` it does not pass through Adam's normalisation. The decay is multiplied by the learning rate.
    """

    reference = "Loshchilov & Hutter 2019, arXiv:1711.05101"
    stage = "decay"
    padded = True

    strength: float = traced(1e-2, ge=0, positional=True, help="coefficient, multiplied by the learning rate")

    def neutral(self) -> Self:
        return type(self)(strength=0.0)

    def optimizer(
        self, tx: optax.GradientTransformationExtraArgs, setting: Setting
    ) -> optax.GradientTransformationExtraArgs:
        rate = setting.learning_rate * self.strength

        def update(updates: Any, state: Any, params: Any = None, **extra: Any):
            updates, state = tx.update(updates, state, params, **extra)
            keep = norm_affine_mask(params, setting.network)
            decayed = jax.tree.map(lambda u, p, affine: u if affine else u - rate * p, updates, params, keep)
            return decayed, state

        return optax.GradientTransformationExtraArgs(tx.init, update)
