"""Coupled L2 regularisation: a penalty on the squared parameter norm, inside the loss."""

from __future__ import annotations

from typing import Self

import jax

from plasticity.config import traced
from plasticity.mitigations.base import Context, Mitigation, mitigations
from plasticity.mitigations.penalties import half_squared_norm
from plasticity.network import Params


@mitigations.register("l2")
class L2(Mitigation):
    """strength / 2 times the sum of squared weights and biases, added to the loss; its gradient passes through Adam.

    Coupled, as the paper describes it; the paper does not say whether there is a factor 1/2 or whether biases count:
    here both do. Norm scales and offsets are left out (as in Kumar et al. 2023). `weight_decay` is the decoupled form.
    """

    reference = "Lyle et al. 2024, arXiv:2402.18762 (1e-5)"
    stage = "penalty"
    padded = True

    strength: float = traced(1e-5, ge=0, positional=True, help="coefficient")

    def neutral(self) -> Self:
        return type(self)(strength=0.0)

    def penalty(self, params: Params, context: Context) -> jax.Array:
        return self.strength * half_squared_norm(params, context.network)
