"""Feature-norm penalty: keeps the last hidden features small."""

from __future__ import annotations

from typing import Self

import jax
import jax.numpy as jnp

from plasticity.config import traced
from plasticity.mitigations.base import Context, Mitigation, mitigations
from plasticity.mitigations.penalties import last_features, rows
from plasticity.network import Params


@mitigations.register("feature_norm")
class FeatureNorm(Mitigation):
    """strength times the mean of phi^2 over the batch and the features that the output layer reads.

    The features of two streams count side by side. No parameter is penalised as such: a norm's scale and offset, and
    biases, shrink as far as features depend on them. There is no published coefficient: this suite's default.
    """

    reference = "a common control for norm growth, as in Lyle et al. 2024, arXiv:2402.18762"
    stage = "penalty"
    padded = True

    strength: float = traced(1e-3, ge=0, positional=True, help="coefficient")

    def neutral(self) -> Self:
        return type(self)(strength=0.0)

    def penalty(self, params: Params, context: Context) -> jax.Array:
        phi = rows(last_features(context.network, context.activations, self.name))
        return self.strength * jnp.mean(jnp.square(phi))
