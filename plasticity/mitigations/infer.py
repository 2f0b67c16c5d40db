"""InFeR: initial feature regularisation, linear heads on the features that must keep predicting what they did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import jax
import jax.numpy as jnp

from plasticity.config import static, traced
from plasticity.errors import UserError
from plasticity.mitigations.base import Context, Mitigation, mitigations
from plasticity.mitigations.penalties import last_features
from plasticity.network import Activation, Network, Params, get_at
from plasticity.networks.base import Architecture


def heads(params: Params, network: Network, activations: Mapping[str, Activation], member: str) -> jax.Array:
    """Outputs of the auxiliary heads `[batch, heads]`: each reads the last features of all streams."""
    total: Any = 0.0
    for path, features in zip(network.auxiliary, last_features(network, activations, member), strict=True):
        kernel = get_at(params, path)
        if features.ndim > 2 and kernel.shape[0] == features.shape[-1]:  # an output layer behind a pooled map
            features = features.mean(axis=tuple(range(1, features.ndim - 1)))
        total += features.reshape(features.shape[0], -1) @ kernel
    return total


@mitigations.register("infer")
class InFeR(Mitigation):
    """strength times the mean over the batch of sum_i (g_i(x; theta) - beta g_i(x; theta_0))^2, i = 1 ... heads.

    g_i are linear heads without bias on the last hidden features, trained by this term only, and part of the parameters
    like any others: an auxiliary kernel that resets of units, decay and norms see. theta_0 is the network at
    initialisation, heads included. A sum over heads: other code takes the mean, ten times less with ten heads. Zero at
    initialisation only for beta = 1; otherwise (1 - beta)^2 mean sum_i g_i^2. With two streams each head reads the
    last hidden layers of both. Norm scales and biases of the network are trained through the features as everywhere.
    """

    reference = "Lyle et al. 2022, arXiv:2204.09560 (10 heads, beta 100, strength .1)"
    cost = "a forward pass of the initial network an update"
    stage = "penalty"
    needs = ("inputs",)

    strength: float = traced(0.1, ge=0, positional=True, help="coefficient, the source's alpha")
    beta: float = traced(100.0, ge=0, help="factor on the initial outputs")
    heads: int = static(10, ge=1, unit="outputs", help="auxiliary linear heads")

    def neutral(self) -> Self:
        return type(self)(strength=0.0, beta=self.beta, heads=self.heads)

    def network(self, architecture: Architecture) -> Architecture:
        return replace(architecture, auxiliary=self.heads)

    def penalty(self, params: Params, context: Context) -> jax.Array:
        network, inputs = context.network, context.need("inputs", self.name)
        if not network.auxiliary:
            raise UserError(f"{self.name} needs a network with auxiliary heads: Network(auxiliary=...) names none")
        before = network.apply(context.initial, inputs)[1]
        wanted = self.beta * heads(context.initial_params, network, before, self.name)
        error = heads(params, network, context.activations, self.name) - jax.lax.stop_gradient(wanted)
        return self.strength * jnp.mean(jnp.sum(jnp.square(error), axis=1))
