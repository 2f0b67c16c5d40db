"""RMSProp (Tieleman & Hinton 2012), centred or not.

The centred form divides by the deviation of the gradient, nu - m^2 with m and nu the moving averages of g and g^2. That
difference cancels where gradients are steady: with |g| around 10 its rounding error exceeds DQN's eps and the root is
of a negative number. It is kept as a variance instead, equal to it without rounding and never negative:
v <- decay (v + (1 - decay) (g - m)^2), then m <- m + (1 - decay) (g - m).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity.config import static, traced
from plasticity.optimizers.base import OptimizerConfig, optimizers


class CentredState(NamedTuple):
    """Moving mean and variance of the gradient, both shaped as the parameters."""

    mean: Any
    variance: Any


def scale_by_deviation(decay: float, eps: float) -> optax.GradientTransformation:
    """g / sqrt(v + eps), v the moving variance of g, which starts from a mean and a variance of 0."""

    def init(params: Any) -> CentredState:
        return CentredState(jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, CentredState]:
        del params
        off = jax.tree.map(jnp.subtract, updates, state.mean)
        variance = jax.tree.map(lambda v, d: decay * (v + (1 - decay) * jnp.square(d)), state.variance, off)
        mean = jax.tree.map(lambda m, d: m + (1 - decay) * d, state.mean, off)
        return jax.tree.map(lambda g, v: g * jax.lax.rsqrt(v + eps), updates, variance), CentredState(mean, variance)

    return optax.GradientTransformation(init, update)


@optimizers.register("rmsprop")
class RMSProp(OptimizerConfig):
    """nu <- decay nu + (1 - decay) g^2; theta <- theta - lr g / sqrt(nu [- mean(g)^2] + eps). No step count to keep.

    DQN's own optimiser is `rmsprop(2.5e-4, centered=true)`; its eps is .01 / 32^2, inside the root.
    """

    reference = "Tieleman & Hinton 2012; centred: Graves 2013, arXiv:1308.0850"

    lr: float = traced(2.5e-4, gt=0, positional=True, help="learning rate")
    decay: float = traced(0.95, ge=0, le=1, help="of the moments")
    eps: float = traced(9.765625e-6, ge=0, help="added inside the square root")
    centered: bool = static(False, help="divide by the standard deviation instead of the root mean square")

    def build(self, per_entry: bool = False) -> optax.GradientTransformationExtraArgs:
        scale = scale_by_deviation if self.centered else optax.scale_by_rms
        tx = optax.chain(scale(decay=self.decay, eps=self.eps), optax.scale(-self.lr))
        return optax.with_extra_args_support(tx)
