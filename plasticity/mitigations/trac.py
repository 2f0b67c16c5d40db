"""TRAC: a parameter-free scale of the whole path from the start (Muppidi et al. 2024, arXiv:2405.16642)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from plasticity.config import traced
from plasticity.mitigations.base import Mitigation, Setting, mitigations
from plasticity.mitigations.wrapping import Step, around
from plasticity.network import Params

DISCOUNTS = (0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)
#: Nodes and weights on [0, 1]: the integrand of `erfi` is smooth, and 64 nodes give it to float precision.
_NODES, _WEIGHTS = (np.float32(x) for x in np.polynomial.legendre.leggauss(64))
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2
#: erfi(9) is 1e34: beyond it float32 overflows.
LARGEST = 9.0


class Tuned(NamedTuple):
    """path: the sum of the inner optimiser's steps; scale: what it is multiplied by; variance, sigma: of the tuners."""

    path: Params
    scale: jax.Array
    variance: jax.Array
    sigma: jax.Array


def erfi(x: jax.Array) -> jax.Array:
    """-i erf(i x) for |x| <= 9: 2/sqrt(pi) times the integral of exp(t^2) from 0 to x."""
    inner = jnp.exp(jnp.square(x)[..., None] * (jnp.square(_NODES) - 1))
    return 2 / jnp.sqrt(jnp.pi) * x * jnp.exp(jnp.square(x)) * jnp.sum(_WEIGHTS * inner, -1)


@mitigations.register("trac")
class TRAC(Mitigation):
    """theta = theta_0 + S sum of the inner optimiser's steps, S >= 0 the sum of six tuners.

    With D the sum before this update and h = <g, D>: variance <- beta^2 variance + h^2 and sigma <- beta sigma - h for
    each beta of .9, .99, ... .999999; the tuner's scale is s_prev erfi(sigma / (sqrt(2 variance) + eps)) / erfi(1/sqrt
    2), where sigma starts at 1e-8 and variance and S at 0; S is their sum, or 0. At first S is about s_prev, so
    parameters hardly move for some hundred updates while it grows by factors.

    The published code recomputes D as (theta - theta_0) / (S + eps), which at S = 1e-8 is the rounding error of theta
    and forgets the path when S is 0. Here D is kept, and the update is S' D' - S D. So theta_0 is implicit, it is
    theta - S D: what others change (a projection, an event) moves the anchor instead of being undone, and a reset entry
    starts a new path from its fresh value. erfi is exact here to float precision, with its argument limited to 9; the
    published approximation is off by up to 1% near 0. g is the gradient as it comes in.
    """

    reference = "Muppidi et al. 2024, arXiv:2405.16642 (s_prev 1e-8, eps 1e-8)"
    stage = "step"
    cost = "a sum of steps, and one inner product of it with the gradient"

    s_prev: float = traced(1e-8, gt=0, help="scale to start from")
    eps: float = traced(1e-8, ge=0, help="added to the root of the variance")

    def optimizer(
        self, tx: optax.GradientTransformationExtraArgs, setting: Setting
    ) -> optax.GradientTransformationExtraArgs:
        discounts = jnp.asarray(DISCOUNTS)

        def start(params: Params) -> Tuned:
            tuners = jnp.zeros(len(DISCOUNTS))
            return Tuned(jax.tree.map(jnp.zeros_like, params), jnp.zeros(()), tuners, jnp.full_like(tuners, 1e-8))

        def after(step: Step, old: Tuned) -> tuple[Params, Tuned]:
            h = optax.tree.vdot(step.gradient, old.path)
            variance = discounts**2 * old.variance + h**2
            sigma = discounts * old.sigma - h
            x = sigma / (jnp.sqrt(2 * variance) + self.eps)
            scales: Any = self.s_prev * erfi(jnp.clip(x, -LARGEST, LARGEST)) / erfi(jnp.sqrt(0.5))
            scale = jnp.maximum(jnp.sum(scales), 0.0)
            path = jax.tree.map(jnp.add, old.path, step.updates)
            updates = jax.tree.map(lambda new, before: scale * new - old.scale * before, path, old.path)
            return updates, Tuned(path, scale, variance, sigma)

        return around(tx, setting, after=after, start=start)
