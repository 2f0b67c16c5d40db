"""DR3: a penalty on the alignment of features of consecutive state-action pairs."""

from __future__ import annotations

from typing import Self

import jax
import jax.numpy as jnp

from plasticity.config import traced
from plasticity.mitigations.base import Context, Mitigation, mitigations
from plasticity.mitigations.penalties import last_features, rows
from plasticity.network import Params


@mitigations.register("dr3")
class DR3(Mitigation):
    """strength times the mean over transitions of phi(s, a)^T phi(s', a'); gradients flow through both.

    phi are the features that the output layer reads, of the online network. In a network with one output an action they
    do not depend on the action, so that the product is phi(s)^T phi(s'). A dot product, not a cosine, and it may become
    negative. Pairs across the end of an episode count too (the source leaves them open). For agents only. No parameter
    is penalised as such. The strength is this suite's default; the source tunes it.
    """

    reference = "Kumar et al. 2022, arXiv:2112.04716"
    cost = "a forward and backward pass on the next observations"
    stage = "penalty"
    needs = ("following",)

    strength: float = traced(1e-3, ge=0, positional=True, help="coefficient")

    def neutral(self) -> Self:
        return type(self)(strength=0.0)

    def penalty(self, params: Params, context: Context) -> jax.Array:
        following = context.need("following", self.name)()
        now, then = (rows(last_features(context.network, a, self.name)) for a in (context.activations, following))
        return self.strength * jnp.mean(jnp.sum(now * then, axis=1))
