"""The random-label probe: how well a copy of a classifier still memorises labels that mean nothing.

Labels are uniform and independent of the inputs, so nothing learned before helps, and what is measured is the ability
to change. Memorising random labels after Zhang et al. 2017 (arXiv:1611.03530); as a probe of networks in training,
Lyle et al. 2023 (arXiv:2303.01486).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from plasticity.diagnostics.standalone import standalone
from plasticity.errors import UserError
from plasticity.probes.fitting import Initializer, Model, budget, examples, fit, opened, outputs_of, whole
from plasticity.rng import named


class RandomLabels(NamedTuple):
    """Cross-entropy in nats and accuracy in 0..1 on the labels that were fitted, of the copy and of a fresh network.

    chance: accuracy of always saying the most frequent label, which in a small sample is above 1 / classes.
    """

    loss: Float[Array, ""]
    fresh_loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    fresh_accuracy: Float[Array, ""]
    chance: Float[Array, ""]
    curve: Float[Array, " points"] | None = None
    fresh_curve: Float[Array, " points"] | None = None


@standalone(
    name="random_labels",
    unit="nats",
    range=(0.0, math.inf),
    cost="2 x updates training steps; memory of two copies, gradients and optimiser states",
    reference="Zhang et al. 2017, arXiv:1611.03530; Lyle et al. 2023, arXiv:2303.01486",
)
def random_labels(
    key: jax.Array,
    network: Model,
    variables: Any,
    initializer: Initializer,
    x: Array,
    tx: optax.GradientTransformationExtraArgs,
    updates: int,
    batch_size: int = 32,
    *,
    classes: int | None = None,
    carried: Any = None,
    every: int | None = None,
) -> RandomLabels:
    """Cross-entropy and accuracy of a copy on random labels after a budget of updates, beside a fresh network.

    Arguments as for `trainability`; the outputs are logits. classes: labels are drawn from 0 ... classes - 1; None for
    as many as there are outputs. every: also keep the losses every so many updates.

    A fresh classifier begins near log(classes); an aged one, whose logits are large, far above: that it has to
    unlearn them counts. Not a number of a network with one output, which has no classes: a `UserError`. NaN if
    parameters or inputs are not finite.

    Name collisions: accuracy on random labels is here that on all of `x` after the last update, not the running
    accuracy during training and not a generalisation to other inputs, which is chance by construction.
    """
    x = examples(x, 1)
    budget(updates, batch_size, every)
    forward, params = opened(network, variables)
    outputs = jax.eval_shape(lambda params, x: outputs_of(forward, params, x), params, x).shape[1]
    classes = outputs if classes is None else classes
    whole("classes", classes, 2)
    if classes > outputs:
        raise UserError(f"classes={classes} are more than the network's {outputs} outputs")
    y = jax.random.randint(named(key, "labels"), (x.shape[0],), 0, classes)
    fresh = initializer(named(key, "fresh"))

    def fitted(variables: Any, state: Any) -> tuple[Array, Array, Array | None]:
        forward, params = opened(network, variables)
        loss = optax.softmax_cross_entropy_with_integer_labels
        done = fit(named(key, "batch"), forward, loss, params, x, y, tx, state, updates, batch_size, every)
        return done.loss, accuracy(outputs_of(forward, done.params, x), y), done.curve

    (loss, right, curve), (fresh_loss, fresh_right, fresh_curve) = fitted(variables, carried), fitted(fresh, None)
    chance = jnp.max(jnp.bincount(y, length=classes)) / x.shape[0]
    return RandomLabels(loss, fresh_loss, right, fresh_right, chance, curve, fresh_curve)


def accuracy(outputs: Float[Array, "examples classes"], y: Array) -> Float[Array, ""]:
    """Share of examples whose largest output is that of the label; NaN for outputs that are not finite."""
    right = jnp.mean((jnp.argmax(outputs, axis=1) == y).astype(jnp.float32))
    return jnp.where(jnp.isfinite(outputs).all(), right, jnp.nan)
