"""The warm-start gap: what a network that was trained before generalises less than a fresh one, on the same data.

    gap = test score after continued training - test score after training from scratch

both on the same data with the same budget (Ash & Adams 2020, arXiv:1910.08475: negative for a network that was trained
on part of the data first). A network may train as well as ever and still have a gap: this is about generalisation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from plasticity.diagnostics.standalone import standalone
from plasticity.errors import UserError
from plasticity.probes.fitting import Initializer, Model, budget, examples, fit, opened, outputs_of
from plasticity.probes.labels import accuracy
from plasticity.rng import named


class WarmStartGap(NamedTuple):
    """gap: mean of continued minus fresh over pairs of runs. error: its standard error, NaN for fewer than 2 pairs."""

    gap: Float[Array, ""]
    error: Float[Array, ""]


class WarmStart(NamedTuple):
    """Test scores after continued and after fresh training, and their difference."""

    continued: Float[Array, ""]
    fresh: Float[Array, ""]
    gap: Float[Array, ""]


@standalone(
    name="warm_start_gap",
    unit="score",
    range=(-np.inf, np.inf),
    cost="none, given the scores; one more training for the fresh network",
    reference="Ash & Adams 2020, arXiv:1910.08475",
)
def warm_start_gap(continued: Float[Array, " runs"], fresh: Float[Array, " runs"]) -> WarmStartGap:
    """Mean difference of test scores between continued and fresh training, with its standard error over pairs.

    continued, fresh: test scores `[runs]`, paired by seed; a number for one run. -1 to 1 for accuracies. Negative
    where continued training generalises less. NaN in a pair makes the result NaN.

    Name collisions: "generalisability" and "generalisation gap" of this literature; the latter is elsewhere train
    minus test score of one network.
    """
    a, b = jnp.atleast_1d(jnp.asarray(continued)), jnp.atleast_1d(jnp.asarray(fresh))
    if a.shape != b.shape or a.ndim != 1 or a.size == 0:
        raise UserError(f"scores must be two [runs] of one length, paired by seed; got {a.shape} and {b.shape}")
    gap = a.astype(jnp.promote_types(a.dtype, jnp.float32)) - b
    error = jnp.std(gap, ddof=1) / jnp.sqrt(gap.size) if gap.size > 1 else jnp.full((), jnp.nan, gap.dtype)
    return WarmStartGap(gap.mean(), error)


def warm_start(
    key: jax.Array,
    network: Model,
    variables: Any,
    initializer: Initializer,
    train: tuple[Array, Array],
    test: tuple[Array, Array],
    tx: optax.GradientTransformationExtraArgs,
    updates: int,
    batch_size: int = 32,
    *,
    loss: Callable[[Array, Array], Array] = optax.softmax_cross_entropy_with_integer_labels,
    score: Callable[[Array, Array], Array] = accuracy,
    carried: Any = None,
) -> WarmStart:
    """Train a copy and a fresh network on the same data, order and budget, and compare their test scores.

    train, test: `(x[examples, ...], y[examples, ...])`. loss: `(outputs, y) -> [examples]`, as of a head. score:
    `(outputs, y) -> scalar`, high is good. carried: the run's optimiser state for the copy; None for a fresh one. For
    data that grew, `variables` are those after training on the part that was there before.

    Cost: 2 x updates training steps. The result depends on the budget: give the fresh network enough to converge.
    """
    budget(updates, batch_size)
    (x, y), (test_x, test_y) = ([examples(a, 1, "data") for a in pair] for pair in (train, test))
    for inputs, labels in ((x, y), (test_x, test_y)):
        if inputs.shape[0] != labels.shape[0]:
            raise UserError(f"inputs and labels must have the same examples, got {inputs.shape} and {labels.shape}")

    def scored(variables: Any, state: Any) -> Array:
        forward, params = opened(network, variables)
        done = fit(named(key, "batch"), forward, loss, params, x, y, tx, state, updates, batch_size)
        return score(outputs_of(forward, done.params, test_x), test_y)

    continued, fresh = scored(variables, carried), scored(initializer(named(key, "fresh")), None)
    return WarmStart(continued, fresh, continued - fresh)
