"""Target-fitting capacity: expected loss on random target functions that a copy reaches with a budget.

    C(theta) = E_f E_x (g(x; theta') - f(x))^2,   theta' = what the optimiser makes of theta, for f, in K updates

with f the outputs of freshly initialised networks (Lyle et al. 2022, arXiv:2204.09560, definition 1).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from plasticity.diagnostics.standalone import standalone
from plasticity.probes.fitting import Initializer, Model, budget, examples, fit, opened, outputs_of, whole
from plasticity.rng import named


class Capacity(NamedTuple):
    """Mean squared errors, averaged over targets and one a target, of the copy and of a fresh network.

    variance: of the targets over inputs, averaged over targets and outputs: the loss of predicting each one's mean.
    """

    loss: Float[Array, ""]
    fresh_loss: Float[Array, ""]
    losses: Float[Array, " targets"]
    fresh_losses: Float[Array, " targets"]
    variance: Float[Array, ""]


@standalone(
    name="target_fitting_capacity",
    unit="output squared",
    range=(0.0, math.inf),
    cost="2 x targets x updates training steps, one target after the other; memory as for one",
    reference="Lyle et al. 2022, arXiv:2204.09560, definition 1",
)
def target_fitting_capacity(
    key: jax.Array,
    network: Model,
    variables: Any,
    initializer: Initializer,
    x: Array,
    tx: optax.GradientTransformationExtraArgs,
    updates: int,
    batch_size: int = 32,
    *,
    targets: int = 10,
    carried: Any = None,
    every: int | None = None,
) -> Capacity:
    """Expected squared error of a copy on outputs of random networks after a budget of updates; high is bad.

    Arguments as for `trainability`. targets: how many random networks are drawn, static; the error is the mean over
    inputs and over all outputs. every: None for the loss at the end, as in the definition; a number for the lowest one
    among those before the first update and after every so many, which does not punish a last step that went astray.

    The unit is that of the outputs, squared, so values of two architectures cannot be compared; divide by `variance`
    to get shares. NaN if parameters or inputs are not finite. One example, or constant targets, is no error: the loss
    is what is left of the distance, and `variance` is 0.

    Name collisions: high values are low capacity, in the definition too. "Capacity" of function classes (VC dimension,
    Rademacher) is something else, as is "capacity loss" where it means the fall of the feature rank.
    """
    x = examples(x, 1)
    budget(updates, batch_size, every)
    whole("targets", targets)
    fresh = initializer(named(key, "fresh"))

    def one(key: jax.Array) -> tuple[Array, Array, Array]:
        forward, target = opened(network, initializer(named(key, "target")))
        y = outputs_of(forward, target, x)

        def loss_of(variables: Any, state: Any) -> Array:
            forward, params = opened(network, variables)
            done = fit(
                named(key, "batch"), forward, _squared_error, params, x, y, tx, state, updates, batch_size, every
            )
            return done.loss if done.curve is None else jnp.min(done.curve)

        return loss_of(variables, carried), loss_of(fresh, None), jnp.mean(jnp.var(y, axis=0))

    losses, fresh_losses, variance = jax.lax.map(one, jax.random.split(named(key, "targets"), targets))
    return Capacity(losses.mean(), fresh_losses.mean(), losses, fresh_losses, variance.mean())


def _squared_error(outputs: Array, y: Array) -> Array:
    return jnp.mean(jnp.square(outputs - y), axis=1)
