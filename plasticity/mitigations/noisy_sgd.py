"""Gradient noise in proportion to the gradient (Joudaki et al. 2025, arXiv:2510.00304)."""

from __future__ import annotations

from typing import Self

import jax
import jax.numpy as jnp
import optax

from plasticity.config import traced
from plasticity.mitigations.base import Mitigation, Setting, mitigations
from plasticity.mitigations.wrapping import around, normals
from plasticity.network import Params


@mitigations.register("noisy_sgd")
class NoisySGD(Mitigation):
    """g <- g + scale |g| xi in front of the optimiser, xi standard normal for each entry, |g| the norm of its tensor.

    Any optimiser may stand behind it; the source has SGD. The noise of a tensor of n entries is sqrt(n) scale times as
    long as its gradient. It breaks the symmetry of units with equal weights, and does nothing where a whole tensor has
    no gradient. All parameters take part. Without the source's decay of the scale over time.
    """

    reference = "Joudaki et al. 2025, arXiv:2510.00304 (scale .01)"
    stage = "gradient"
    cost = "a standard normal for each parameter in each update"

    scale: float = traced(0.01, ge=0, positional=True, help="deviation of the noise over the norm of the gradient")

    def neutral(self) -> Self:
        return type(self)(scale=0.0)

    def optimizer(
        self, tx: optax.GradientTransformationExtraArgs, setting: Setting
    ) -> optax.GradientTransformationExtraArgs:
        def before(gradient: Params, key: jax.Array) -> Params:
            return jax.tree.map(
                lambda g, xi: g + self.scale * jnp.linalg.norm(g.ravel()) * xi, gradient, normals(key, gradient)
            )

        return around(tx, setting, before=before)
