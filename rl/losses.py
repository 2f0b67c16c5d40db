"""What a batch of transitions is learned by: targets, losses an example, and the errors that priorities are made of.

With outputs of the online network at s, of the target network at s' and of the selector at s' (the online network in
double Q-learning, van Hasselt et al. 2016, arXiv:1509.06461, else the target network), a* is the selector's greedy
action, and

    scalar        y = R + discount * Q_target(s', a*); Huber (corner at 1) or squared error of Q(s, a) - y
    binned        the same y, coded by the head (two-hot, HL-Gauss), cross-entropy
    categorical   the distribution of R + discount * Z_target(s', a*), projected on the atoms, cross-entropy
                  (Bellemare et al. 2017, arXiv:1707.06887)

Outputs are `[batch, actions, outputs]`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from plasticity.heads import Categorical, Head, Regression


class Losses(NamedTuple):
    """loss: what is minimised. td_error: |Q(s, a) - y| in values. q: Q(s, a). All `[batch]`."""

    loss: Float[Array, " batch"]
    td_error: Float[Array, " batch"]
    q: Float[Array, " batch"]


def of_action(outputs: Float[Array, "batch actions outputs"], action: Int[Array, " batch"]) -> Float[Array, "b o"]:
    """The outputs of one action of each example."""
    return jnp.take_along_axis(outputs, action[:, None, None], axis=1)[:, 0]


def losses(
    head: Head,
    kind: str,
    online: Float[Array, "batch actions outputs"],
    target: Float[Array, "batch actions outputs"],
    selector: Float[Array, "batch actions outputs"],
    action: Int[Array, " batch"],
    reward: Float[Array, " batch"],
    discount: Float[Array, " batch"],
) -> Losses:
    """kind: `huber` or `mse`, of scalar values. No gradient flows through target and selector."""
    target, selector = jax.lax.stop_gradient((target, selector))
    chosen = of_action(online, action)
    following = of_action(target, jnp.argmax(head.predict(selector), axis=1))
    q = head.predict(chosen)
    y = reward + discount * head.predict(following)
    error = q - y
    if isinstance(head, Regression):
        # Squared without the factor 1/2, as Dopamine has it; Huber with it, as DQN Zoo's clipped gradient has it.
        loss = jnp.square(error) if kind == "mse" else optax.losses.huber_loss(error, delta=1.0)
    elif isinstance(head, Categorical):
        atoms = reward[:, None] + discount[:, None] * head.centres()
        code = head.project(atoms, jax.nn.softmax(following))
        loss = optax.softmax_cross_entropy(chosen, code)
    else:
        loss = head.loss(chosen, y)
    return Losses(loss, jnp.abs(error), q)


def priorities(kind: str, losses: Losses) -> Float[Array, " batch"]:
    """What a transition is drawn by, before the exponent: |TD error|, loss, or its root (Dopamine, with 1e-10)."""
    if kind == "td":
        return losses.td_error
    clipped = jnp.clip(losses.loss, 0.0, 100.0)  # as DQN Zoo; a loss is negative only by rounding
    return jnp.sqrt(clipped + 1e-10) if kind == "sqrt_loss" else clipped
