"""The trainability probe: how well a copy of a network still fits fresh targets, against a fresh network.

Targets are y(x) = a + sin(1e5 f(x)), f a freshly initialised network of the same architecture and a the mean of the
copy's own outputs, so that their mean neither helps nor hurts (Lyle et al. 2023, arXiv:2303.01486); their spread
counts: outputs that vary over inputs by much more than 1 have that to unlearn first, and the loss may exceed 1. Both
copies get a fresh optimiser and the same batches; the loss after K updates is divided by the variance of the
targets: 1 is as good as predicting their mean, 0 is a perfect fit. Nothing of the run changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from plasticity.network import Network
from plasticity.rng import named


class Trainability(NamedTuple):
    """Final losses over the variance of the targets, of the copy and of a fresh network with the same budget."""

    loss: Float[Array, ""]
    fresh_loss: Float[Array, ""]


def trainability(
    key: jax.Array,
    network: Network,
    variables: dict[str, Any],
    initializer: Callable[[jax.Array], dict[str, Any]],
    x: Array,
    tx: optax.GradientTransformationExtraArgs,
    updates: int,
    batch_size: int = 32,
) -> Trainability:
    """Fit the first output of a copy of `variables` to fresh targets on inputs `x[examples, ...]`.

    tx: the optimiser, whose state starts fresh. updates: K, static. batch_size: examples an update.
    """

    def first_output(variables: dict[str, Any], x: Array) -> Array:
        return network.apply(variables, x)[0][:, 0]

    wave = jnp.sin(1e5 * first_output(initializer(named(key, "target")), x))
    fresh = initializer(named(key, "fresh"))

    def fit(variables: dict[str, Any]) -> Array:
        targets = jnp.mean(first_output(variables, x)) + wave

        def loss_fn(params: Any, rest: dict[str, Any], index: Array) -> Array:
            return jnp.mean(jnp.square(first_output({**rest, "params": params}, x[index]) - targets[index]))

        def body(i: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            params, state = carry
            index = jax.random.randint(jax.random.fold_in(named(key, "batch"), i), (batch_size,), 0, x.shape[0])
            change, state = tx.update(jax.grad(loss_fn)(params, variables, index), state, params)
            return optax.apply_updates(params, change), state

        carry = variables["params"], tx.init(variables["params"])
        params, _ = jax.lax.fori_loop(0, updates, body, carry)
        return loss_fn(params, variables, jnp.arange(x.shape[0])) / jnp.maximum(jnp.var(targets), 1e-12)

    return Trainability(fit(variables), fit(fresh))
