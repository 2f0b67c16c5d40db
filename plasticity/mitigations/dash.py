"""DASH, direction-aware shrinking at a task switch (Shin et al. 2024, arXiv:2410.23495)."""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp

from plasticity.config import static, traced
from plasticity.mitigations.base import Event, Learner, Mitigation, Setting, mitigations
from plasticity.mitigations.penalties import roles
from plasticity.network import get_at, set_at


def shrink_factor(w: jax.Array, d: jax.Array, least: Any, axes: tuple[int, ...]) -> jax.Array:
    """clip(cos(w, d), least, 1) of the vectors along `axes`, 1 where one of them is zero; axes are kept."""

    def unit(x: jax.Array) -> jax.Array:
        # By the largest entry first: squares of small gradients vanish in float32.
        size = jnp.max(jnp.abs(x), axis=axes, keepdims=True)
        x = x / jnp.where(size > 0, size, 1.0)
        length = jnp.sqrt(jnp.sum(jnp.square(x), axis=axes, keepdims=True))
        return x / jnp.where(length > 0, length, 1.0)

    a, b = unit(w), unit(d)
    defined = jnp.any(a != 0, axis=axes, keepdims=True) & jnp.any(b != 0, axis=axes, keepdims=True)
    return jnp.where(defined, jnp.clip(jnp.sum(a * b, axis=axes, keepdims=True), least, 1.0), 1.0)


@mitigations.register("dash")
class Dash(Mitigation):
    """At each switch shrink the weights that do not point where the loss on the new task falls.

        d <- (1 - alpha) d - alpha g   over `batches` batches of the new task, from d = 0, g the gradient of the loss
        w <- w clip(cos(w, d), least, 1)

    w is the incoming vector of a unit in a dense layer, the k x k kernel of each pair of channels in a convolution (of
    a 1 x 1 kernel the cosine is +-1), and a layer's bias as one vector. Where w or d is zero the factor is 1. Norm
    scales and offsets, and deviations of noisy layers, stay. The optimiser's state is renewed, as in the source;
    `reset_optimizer=false` keeps it, and only then is least = 1 absence.

    Source: alpha .3 (or .1), least .3 (.05 to .3), g over all batches of the data so far. The factors do not depend on
    d's length, and of ten batches the oldest counts .7^9 = 4 % of the newest: `batches` is this suite's.
    """

    reference = "Shin et al. 2024, arXiv:2410.23495"
    cost = "at a switch as much as `batches` updates"
    stage = "event"

    least: float = traced(0.3, ge=0, le=1, positional=True, help="smallest factor; 1 shrinks nothing")
    alpha: float = traced(0.3, gt=0, le=1, help="weight of the newest gradient")
    batches: int = static(10, ge=1, unit="batches", help="gradients that are averaged")
    reset_optimizer: bool = static(True, help="also restart the optimiser's state")

    def neutral(self) -> Self | None:
        return None if self.reset_optimizer else type(self)(1.0, self.alpha, self.batches, False)

    def on_event(self, key: jax.Array, learner: Learner, setting: Setting, event: Event) -> Learner:
        params = learner.variables["params"]

        def average(d: Any, key: jax.Array):
            g = event.gradient(learner.variables, key)
            return jax.tree.map(lambda d, g: (1 - self.alpha) * d - self.alpha * g, d, g), None

        d, _ = jax.lax.scan(average, jax.tree.map(jnp.zeros_like, params), jax.random.split(key, self.batches))
        found = roles(params, setting.network)
        for path in (*found.weights, *found.biases):
            w = get_at(params, path)
            axes = (0, 1) if w.ndim == 4 else (0,)
            params = set_at(params, path, w * shrink_factor(w, get_at(d, path), self.least, axes))
        variables = {**learner.variables, "params": params}
        return Learner(variables, setting.restarted(variables) if self.reset_optimizer else learner.opt_state)
