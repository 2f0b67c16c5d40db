"""Adam (Kingma & Ba 2015, arXiv:1412.6980), with one shared step count or one count for every parameter entry.

Why per-entry counts: zeroing the moments of a reset unit while the shared count t stays large leaves its bias
correction 1 - b^t near 1, and the first updates of the fresh weights come out up to 6.6 times too large for
b1 = .9, b2 = .999 under a constant gradient. With a count that restarts with the moments they are
exactly those of a fresh Adam. (Continual backprop's AdamGnT keeps such counts: Dohare et al. 2024, Nature 632.)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity.config import traced
from plasticity.optimizers.base import OptimizerConfig, optimizers


class PerEntryAdamState(NamedTuple):
    """count: int32 updates since the entry was last reset; mu, nu: first and second moments; all shaped as the params."""

    count: Any
    mu: Any
    nu: Any


def scale_by_adam_per_entry(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, eps_root: float = 0.0
) -> optax.GradientTransformation:
    """`optax.scale_by_adam` with a step count per parameter entry. Equal to it as long as nothing is reset.

    All three state trees look like the parameters, so `optax.tree_map_params` reaches them: setting the masked entries
    of each to zero is a correct reset.
    """

    def init(params: Any) -> PerEntryAdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return PerEntryAdamState(jax.tree.map(lambda p: jnp.zeros_like(p, jnp.int32), params), zeros, zeros)

    def update(updates: Any, state: PerEntryAdamState, params: Any = None):
        del params
        count = jax.tree.map(lambda c: c + 1, state.count)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, updates)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, updates)

        def direction(c: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
            t = c.astype(m.dtype)
            return (m / (1 - b1**t)) / (jnp.sqrt(v / (1 - b2**t) + eps_root) + eps)

        return jax.tree.map(direction, count, mu, nu), PerEntryAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


@optimizers.register("adam")
class Adam(OptimizerConfig):
    """Adam; `adam(b2=0.9, eps_root=1e-3, eps=1e-9)` is the tuned form of Lyle et al. 2023 (arXiv:2303.01486)."""

    reference = "Kingma & Ba 2015, arXiv:1412.6980"

    b1: float = traced(0.9, ge=0, le=1, help="decay of the first moment")
    b2: float = traced(0.999, ge=0, le=1, help="decay of the second moment")
    eps: float = traced(1e-8, ge=0, help="added outside the square root")
    eps_root: float = traced(0.0, ge=0, help="added inside the square root")

    def build(self, per_entry: bool = False) -> optax.GradientTransformationExtraArgs:
        adam = scale_by_adam_per_entry if per_entry else optax.scale_by_adam
        tx = optax.chain(
            adam(b1=self.b1, b2=self.b2, eps=self.eps, eps_root=self.eps_root), optax.scale(-self.lr)
        )
        return optax.with_extra_args_support(tx)
