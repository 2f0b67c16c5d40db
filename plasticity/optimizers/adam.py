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
    """mu, nu: first and second moments; mu_mass, nu_mass: 1 - b^t of each entry; all shaped as the params."""

    mu: Any
    nu: Any
    mu_mass: Any
    nu_mass: Any


def scale_by_adam_per_entry(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, eps_root: float = 0.0
) -> optax.GradientTransformation:
    """`optax.scale_by_adam` with a step count per parameter entry. Equal to it as long as nothing is reset.

    The count t is kept as the bias correction it stands for, 1 - b^t, which is the moving average of the constant 1
    under the same decay as the moment: one multiplication an update where a power of t would cost more than all the
    rest of Adam. All four state trees look like the parameters, so `optax.tree_map_params` reaches them, and setting
    the masked entries of each to zero is a correct reset.
    """

    def init(params: Any) -> PerEntryAdamState:
        # Four trees of their own: one shared buffer could not be donated four times.
        return PerEntryAdamState(*(jax.tree.map(jnp.zeros_like, params) for _ in range(4)))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, PerEntryAdamState]:
        del params

        def average(decay: float, old: Any, new: Any) -> Any:
            return jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, old, new)

        ones = jax.tree.map(jnp.ones_like, updates)
        mu = average(b1, state.mu, updates)
        nu = average(b2, state.nu, jax.tree.map(jnp.square, updates))
        mu_mass = average(b1, state.mu_mass, ones)
        nu_mass = average(b2, state.nu_mass, ones)

        def direction(m: jax.Array, v: jax.Array, m_mass: jax.Array, v_mass: jax.Array) -> jax.Array:
            return (m / m_mass) / (jnp.sqrt(v / v_mass + eps_root) + eps)

        direction_tree = jax.tree.map(direction, mu, nu, mu_mass, nu_mass)
        return direction_tree, PerEntryAdamState(mu, nu, mu_mass, nu_mass)

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
        tx = optax.chain(adam(b1=self.b1, b2=self.b2, eps=self.eps, eps_root=self.eps_root), optax.scale(-self.lr))
        return optax.with_extra_args_support(tx)
