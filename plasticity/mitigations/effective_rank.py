"""Effective-rank regularisation: a reward for features that use many directions."""

from __future__ import annotations

from typing import Self

import jax
import jax.numpy as jnp

from plasticity.config import traced
from plasticity.mitigations.base import Context, Mitigation, mitigations
from plasticity.mitigations.penalties import last_features, rows
from plasticity.network import Params


def effective_rank(phi: jax.Array) -> jax.Array:
    """exp(-sum_i p_i log p_i), p_i = s_i / sum s over singular values s of `phi[rows, features]`; 0 for a zero matrix.

    Its gradient is U diag(d erank / d s) V^T, which needs no differences of singular values and so is finite where some
    are equal. d erank / d s_i = -erank (log p_i + log erank) / sum s grows without bound as s_i goes to 0, along
    directions that are arbitrary there: values below rounding error count as zero and have none.
    """
    u, s, vt = jnp.linalg.svd(jax.lax.stop_gradient(phi), full_matrices=False)
    present = s > jnp.finfo(s.dtype).eps * max(phi.shape) * s[0]
    total = jnp.sum(jnp.where(present, s, 0.0))
    safe = jnp.where(total > 0, total, 1.0)
    p = jnp.where(present, s / safe, 1.0)
    entropy = -jnp.sum(p * jnp.log(p))
    rank = jnp.where(total > 0, jnp.exp(entropy), 0.0)
    slopes = jnp.where(present, -rank * (jnp.log(p) + entropy) / safe, 0.0)
    # The value of the first term, the derivative of the second, which is exactly 0.
    return rank + jnp.sum(((u * slopes) @ vt) * (phi - jax.lax.stop_gradient(phi)))


@mitigations.register("effective_rank")
class EffectiveRank(Mitigation):
    """-strength times the effective rank of the features that the output layer reads, on the batch.

    The effective rank of Roy & Vetterli 2007, with singular values that are not squared and features that are not
    centred. The source combines it with an L2 penalty as L2-ER: that is `effective_rank+l2`. A batch smaller than the
    layer is wide caps the rank at the number of rows. A reset of dead units does not see this term, and it does not
    move dead units: a feature that is zero on the whole batch has no gradient behind its nonlinearity. No parameter is
    penalised as such. The strength is this suite's default.
    """

    reference = "He et al. 2025, arXiv:2509.22335"
    cost = "a singular value decomposition of the batch's features an update: slow beyond a few hundred features"
    stage = "penalty"

    strength: float = traced(1e-3, ge=0, positional=True, help="coefficient")

    def neutral(self) -> Self:
        return type(self)(strength=0.0)

    def penalty(self, params: Params, context: Context) -> jax.Array:
        return -self.strength * effective_rank(rows(last_features(context.network, context.activations, self.name)))
