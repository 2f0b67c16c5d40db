"""The trainability probe: how well a copy of a network still fits fresh targets, against a fresh network.

Targets are y(x) = a + sin(omega f(x)), f a freshly initialised network of the same architecture, omega = 1e5, and a the
mean of the copy's own outputs, so that their mean neither helps nor hurts (Lyle et al. 2023, arXiv:2303.01486); their
spread counts: outputs that vary over inputs by much more than 1 have that to unlearn first, and the loss may exceed 1.
With a given number for a, what the probe measures includes how far outputs are from it (Lyle et al. 2024,
arXiv:2402.18762, offsets 0, 8, 16, 32).

Both copies get the same inputs and batches; the loss after K updates is divided by the variance of the targets: 1 is
as good as predicting their mean, 0 is a perfect fit. Nothing of the run changes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from plasticity.diagnostics.standalone import standalone
from plasticity.probes.fitting import Initializer, Model, budget, examples, fit, opened, outputs_of
from plasticity.rng import named

#: Targets that vary less than this have no variance to explain.
LEAST_VARIANCE = 1e-12


class Trainability(NamedTuple):
    """Losses over the variance of the targets, of the copy and of a fresh network with the same budget.

    curve, fresh_curve: before the first update and after every so many, `[updates // every + 1]`; None without `every`.
    """

    loss: Float[Array, ""]
    fresh_loss: Float[Array, ""]
    curve: Float[Array, " points"] | None = None
    fresh_curve: Float[Array, " points"] | None = None


@standalone(
    name="trainability",
    unit="share of variance",
    range=(0.0, math.inf),
    cost="2 x updates training steps; memory of two copies, gradients and optimiser states",
    reference="Lyle et al. 2023, arXiv:2303.01486",
)
def trainability(
    key: jax.Array,
    network: Model,
    variables: Any,
    initializer: Initializer,
    x: Array,
    tx: optax.GradientTransformationExtraArgs,
    updates: int,
    batch_size: int = 32,
    *,
    carried: Any = None,
    offset: Any = None,
    frequency: Any = 1e5,
    every: int | None = None,
) -> Trainability:
    """Loss of a copy on fresh high-frequency targets after a budget of updates, beside that of a fresh network.

        mean_x (g(x; theta_K) - y(x))^2 / var_x y,   y(x) = a + sin(omega f(x; w_0)),   g, f: the first output

    network: a `Network` or a function `forward(params, x)`. variables: of the run; they are copied. initializer: `key
    -> variables`, of the targets and of the fresh network. x: inputs `[examples, ...]`, at least 2. tx: the optimiser.
    updates: K, static. batch_size: examples an update, drawn with replacement.

    carried: the run's optimiser state, for the aged copy only, so that what the state does to learning counts too
    (`tx` must be the one that made it); None: both start fresh. offset: a; None for the mean of each copy's own
    outputs. frequency: omega. every: also keep the losses every so many updates; it divides `updates`.

    1 is no better than the targets' mean, 0 a perfect fit. NaN if parameters or inputs are not finite, and if the
    targets are constant, as they are for inputs that are all equal. In float32 the rounding of f moves the phase by
    about 0.01: another device, or another fusion, draws slightly other targets. One call draws one target; the paper
    averages over 10 (`vmap` over keys) of 2,000 updates each.

    Name collisions: the paper's "plasticity" is the targets' variance minus this loss, unscaled, and its tables print
    the change of the loss since the start of training. "Trainability" is also the training accuracy at the end of a
    task, and in 2509.22335 a count of directions of curvature.
    """
    x = examples(x, 2)
    budget(updates, batch_size, every)
    forward, target = opened(network, initializer(named(key, "target")))
    fresh = initializer(named(key, "fresh"))
    wave = jnp.sin(frequency * outputs_of(forward, target, x)[:, 0])

    def fitted(variables: Any, state: Any) -> tuple[Array, Array | None]:
        forward, params = opened(network, variables)
        middle = jnp.mean(outputs_of(forward, params, x)[:, 0]) if offset is None else offset
        targets = middle + wave
        variance = jnp.var(targets)
        variance = jnp.where(variance > LEAST_VARIANCE, variance, jnp.nan)
        done = fit(
            named(key, "batch"), forward, _squared_error, params, x, targets, tx, state, updates, batch_size, every
        )
        return done.loss / variance, None if done.curve is None else done.curve / variance

    (loss, curve), (fresh_loss, fresh_curve) = fitted(variables, carried), fitted(fresh, None)
    return Trainability(loss, fresh_loss, curve, fresh_curve)


def _squared_error(outputs: Array, y: Array) -> Array:
    return jnp.square(outputs[:, 0] - y)
