"""Gradient-norm penalty: prefers parameters where the loss is flat."""

from __future__ import annotations

from typing import Self

import jax
import jax.numpy as jnp

from plasticity.config import traced
from plasticity.mitigations.base import Context, Mitigation, mitigations
from plasticity.network import Params


@mitigations.register("gradient_norm")
class GradientNorm(Mitigation):
    """strength times |grad L(theta)|^2, L the mean loss of the batch without penalties.

    Its own gradient is 2 strength H g, by differentiating through the backward pass. All parameters count, biases and
    affine parameters of normalisations too. Where the gradient is zero in a neighbourhood (dead units) the penalty has
    no gradient either. There is no published coefficient for plasticity: this suite's default.
    """

    reference = "Barrett & Dherin 2021, arXiv:2009.11162; as a control Lyle et al. 2024, arXiv:2402.18762"
    cost = "a second forward and backward pass, and the derivative of both: an update costs two to three times as much"
    stage = "penalty"
    needs = ("loss",)

    strength: float = traced(1e-3, ge=0, positional=True, help="coefficient")

    def neutral(self) -> Self:
        return type(self)(strength=0.0)

    def penalty(self, params: Params, context: Context) -> jax.Array:
        gradient = jax.grad(context.need("loss", self.name))(params)
        return self.strength * sum((jnp.sum(jnp.square(g)) for g in jax.tree.leaves(gradient)), jnp.zeros(()))
