"""Wasserstein-Init: a penalty on the distance of each tensor's distribution of values from that at initialisation."""

from __future__ import annotations

from typing import Self

import jax
import jax.numpy as jnp

from plasticity.config import traced
from plasticity.mitigations.base import Context, Mitigation, mitigations
from plasticity.network import Params, norm_affine_mask


@mitigations.register("wasserstein_init")
class WassersteinInit(Mitigation):
    """strength times the sum over tensors of sum_i (sort(theta)_i - sort(theta_0)_i)^2.

    For each weight and bias tensor that is its size times the squared 2-Wasserstein distance between the values now and
    at initialisation. Weights may trade places at no cost, where `l2_init` holds each one to its own place. No factor
    1/2; biases take part; norm scales and offsets are left out, as in `l2_init` (a choice of this suite). A bias that
    starts at zero is held to zero.
    """

    reference = "Lewandowski et al. 2023, arXiv:2312.00246 (published grids hold 1e-3 and 1e-2)"
    cost = "two sorts of every tensor an update"
    stage = "penalty"

    strength: float = traced(1e-3, ge=0, positional=True, help="coefficient")

    def neutral(self) -> Self:
        return type(self)(strength=0.0)

    def penalty(self, params: Params, context: Context) -> jax.Array:
        def distance(p: jax.Array, p0: jax.Array, affine: bool) -> jax.Array | float:
            return 0.0 if affine else jnp.sum(jnp.square(jnp.sort(p, axis=None) - jnp.sort(p0, axis=None)))

        affine = norm_affine_mask(params, context.network)
        distances = jax.tree.leaves(jax.tree.map(distance, params, context.initial_params, affine))
        return self.strength * sum(distances, jnp.zeros(()))
