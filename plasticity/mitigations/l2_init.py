"""L2-Init, regenerative regularisation: a penalty on the squared distance from the initial parameters."""

from __future__ import annotations

from typing import Self

import jax

from plasticity.config import traced
from plasticity.mitigations.base import Context, Mitigation, mitigations
from plasticity.mitigations.penalties import half_squared_norm
from plasticity.network import Params


@mitigations.register("l2_init")
class L2Init(Mitigation):
    """strength / 2 times the squared distance of weights and biases from their values at initialisation.

    Norm scales and offsets are left out, as in the source. Other code bases drop the 1/2, take means or an unsquared
    norm, so the same number means a different strength there.
    """

    reference = "Kumar et al. 2023, arXiv:2308.11958"
    stage = "penalty"
    padded = True

    strength: float = traced(1e-3, ge=0, positional=True, help="coefficient")

    def neutral(self) -> Self:
        return type(self)(strength=0.0)

    def penalty(self, params: Params, context: Context) -> jax.Array:
        distance = jax.tree.map(lambda p, p0: p - p0, params, context.initial_params)
        return self.strength * half_squared_norm(distance, context.network)
