"""From a network's outputs and a batch to loss and score, for each kind of problem.

Classification and regression read one prediction an example, or one a position. Where a batch says which classes may be
said, the outputs of the others count as minus infinity, in the loss and in the prediction: they get no gradient. Value
learning has a prediction for each action: the loss is that of the action taken against

    target = reward + discount * max_a prediction_a(next observation; target network)

(Mnih et al. 2015, Nature 518), and the score is how often the action of the highest value is the best one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.heads import Head, Regression, Softmax, average, explained
from tasks.base import Batch, Problem, Transition


class Valued(NamedTuple):
    """A transition whose target is known: action, target and best action, each `[batch]`."""

    action: jax.Array
    target: jax.Array
    best: jax.Array


def base_head(problem: Problem) -> Head:
    """The head of an unmitigated network on this problem."""
    if problem.kind == "classification":
        return Softmax(problem.classes)
    return Regression(*problem.target_range)


def by_action(head: Head, outputs: jax.Array) -> jax.Array:
    """`[batch, actions * outputs]` to `[batch, actions, outputs]` of a prediction."""
    return outputs.reshape(outputs.shape[0], -1, head.outputs)


def with_targets(head: Head, batch: Batch, next_outputs: Any) -> Batch:
    """A batch whose transitions have their targets. next_outputs: `x -> outputs` of the target network."""
    if not isinstance(batch.y, Transition):
        return batch
    y = batch.y
    values = jnp.max(head.predict(by_action(head, next_outputs(y.next_x))), axis=-1)
    return batch._replace(y=Valued(y.action, y.reward + y.discount * values, y.best))


def targets(batch: Batch) -> jax.Array:
    """What the predictions of a batch with targets are to become."""
    return batch.y.target if isinstance(batch.y, Valued) else batch.y


def allowed(outputs: jax.Array, batch: Batch) -> jax.Array:
    """Outputs, minus infinity for classes that may not be said."""
    return outputs if batch.classes is None else jnp.where(batch.classes, outputs, -jnp.inf)


def loss(head: Head, outputs: jax.Array, batch: Batch) -> jax.Array:
    """Mean loss of a batch with targets."""
    if isinstance(batch.y, Valued):
        taken = jnp.take_along_axis(by_action(head, outputs), batch.y.action[:, None, None], axis=1)[:, 0]
        return average(head.loss(taken, batch.y.target), batch.weight)
    return average(head.loss(allowed(outputs, batch), batch.y), batch.weight)


def score(head: Head, outputs: jax.Array, batch: Batch) -> jax.Array:
    """Score of a batch, in [0, 1]."""
    if isinstance(batch.y, Valued):
        chosen = jnp.argmax(head.predict(by_action(head, outputs)), axis=-1)
        return average(chosen == batch.y.best, batch.weight)
    return head.score(head.predict(allowed(outputs, batch)), batch.y, batch.weight)


def nothing(pooled: bool) -> jax.Array:
    """A tally of no updates."""
    return jnp.zeros(4 if pooled else 2)


def tally(head: Head, outputs: jax.Array, batch: Batch, loss: jax.Array, pooled: bool) -> jax.Array:
    """What is summed over the updates of a task: loss and score; if pooled, loss, squared error, target, its square."""
    if not pooled:
        return jnp.stack([loss, score(head, outputs, batch)])
    y = targets(batch)
    error = jnp.square(head.predict(outputs) - y)
    return jnp.stack([loss, jnp.mean(error), jnp.mean(y), jnp.mean(jnp.square(y))])


def online(means: jax.Array, pooled: bool) -> tuple[jax.Array, jax.Array]:
    """Online loss and score of a task from the means of its tallies.

    A pooled score is `max(0, R^2)` of all predictions of the task together, 0 where the targets do not vary.
    """
    if not pooled:
        return means[0], means[1]
    variance = means[3] - jnp.square(means[2])
    # Of a constant target rounding leaves a speck.
    return means[0], explained(means[1], variance, variance > 1e-6 * means[3])
