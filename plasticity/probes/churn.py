"""Churn: what an update on one batch changes on inputs that were not in it.

Plain functions of a network's outputs on a reference batch before and after one update, or some updates; the batch must
not be the one that was trained on. References: Schaul et al. 2022 (arXiv:2206.00730) for the policy, Tang & Berseth
2024 (arXiv:2409.04792) for values. 0 where nothing changed; NaN where an output is not finite.

Name collisions: the periods differ (one update here as there, a target period elsewhere), and "value churn" is the
change of the largest action value, of all of them, or of a state value; each has a function here.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from plasticity.diagnostics.standalone import standalone
from plasticity.errors import UserError

Outputs = Float[Array, "batch actions"]
SCHAUL = "Schaul et al. 2022, arXiv:2206.00730"
TANG = "Tang & Berseth 2024, arXiv:2409.04792"


@standalone(
    name="policy_churn",
    unit="share",
    range=(0.0, 1.0),
    cost="two forward passes on a reference batch",
    reference=SCHAUL,
)
def policy_churn(before: Outputs, after: Outputs) -> Float[Array, ""]:
    """Share of reference inputs whose greedy action, the largest output, changed.

    before, after: `[batch, actions]`. Of equal values the first is greedy, in both.
    """
    a, b = _pair(before, after)
    return _guard(jnp.mean((jnp.argmax(a, axis=1) != jnp.argmax(b, axis=1)).astype(a.dtype)), a, b)


@standalone(
    name="value_churn",
    unit="value",
    range=(0.0, math.inf),
    cost="two forward passes on a reference batch",
    reference=TANG,
)
def value_churn(before: Outputs, after: Outputs) -> Float[Array, ""]:
    """Mean absolute change of the largest output over reference inputs: of the value of the greedy action.

    before, after: `[batch, actions]`.
    """
    a, b = _pair(before, after)
    return _guard(jnp.mean(jnp.abs(jnp.max(b, axis=1) - jnp.max(a, axis=1))), a, b)


@standalone(
    name="output_churn",
    unit="value",
    range=(0.0, math.inf),
    cost="two forward passes on a reference batch",
    reference=TANG,
)
def output_churn(before: Outputs, after: Outputs) -> Float[Array, ""]:
    """Mean absolute change of all outputs over reference inputs: of a network with one output, of its values.

    before, after: `[batch, outputs]`.
    """
    a, b = _pair(before, after)
    return _guard(jnp.mean(jnp.abs(b - a)), a, b)


@standalone(
    name="policy_divergence",
    unit="nats",
    range=(0.0, math.inf),
    cost="two forward passes on a reference batch",
    reference=TANG,
)
def policy_divergence(before: Outputs, after: Outputs) -> Float[Array, ""]:
    """Mean divergence KL(before || after) of the softmax policies over reference inputs.

    before, after: logits `[batch, actions]`. Published code logs the cross-entropy, which is larger by the entropy of
    the policy before and so is not 0 where nothing changed.
    """
    a, b = (jax.nn.log_softmax(logits, axis=1) for logits in _pair(before, after))
    return _guard(jnp.maximum(jnp.mean(jnp.sum(jnp.exp(a) * (a - b), axis=1)), 0.0), a, b)


def _pair(before: Outputs, after: Outputs) -> tuple[Array, Array]:
    a, b = jnp.asarray(before), jnp.asarray(after)
    if a.ndim != 2 or a.size == 0 or a.shape != b.shape:
        raise UserError(f"outputs before and after must be two [batch, outputs] of one shape, got {a.shape}, {b.shape}")
    dtype = jnp.promote_types(jnp.result_type(a, b), jnp.float32)
    return a.astype(dtype), b.astype(dtype)


def _guard(value: Array, *outputs: Array) -> Array:
    finite = jnp.array([jnp.isfinite(out).all() for out in outputs]).all()
    return jnp.where(finite, value, jnp.nan)
