"""Output heads: how network outputs become a loss, a prediction and a score.

A head owns the number of outputs, `loss(outputs, y) -> [batch]`, `predict(outputs) -> [batch]` and
`score(predictions, y) -> scalar in [0, 1]`. A classification score is accuracy. A regression score is
`max(0, R^2)`, with R^2 = 1 - mean squared error / variance of the targets: 0 is no better than predicting the mean of
the current targets, 1 is a perfect fit, and the scale of the targets cancels, so that growing targets can be
compared over time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax


@dataclass(frozen=True)
class Softmax:
    """Cross-entropy over `outputs` classes; `y` holds int class labels. Loss in nats."""

    outputs: int

    def loss(self, outputs: jax.Array, y: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(outputs, y)

    def predict(self, outputs: jax.Array) -> jax.Array:
        return jnp.argmax(outputs, axis=-1)

    def score(self, predictions: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean(predictions == y)


@dataclass(frozen=True)
class Regression:
    """Half the squared error of one linear output. `low`, `high`: the task's stated target range (may be traced)."""

    low: Any
    high: Any
    outputs: int = 1

    def loss(self, outputs: jax.Array, y: jax.Array) -> jax.Array:
        return 0.5 * jnp.square(outputs[..., 0] - y)

    def predict(self, outputs: jax.Array) -> jax.Array:
        return outputs[..., 0]

    def score(self, predictions: jax.Array, y: jax.Array) -> jax.Array:
        return r2_score(predictions, y)


@dataclass(frozen=True)
class TwoHot:
    """Cross-entropy against a two-hot code of the target on `outputs` evenly spaced bins over `[low, high]`.

    A target between two bin centres puts weight on both so that the mean of the code is the target
    (Schrittwieser et al. 2020, arXiv:1911.08265); targets beyond the support are clipped to it. The prediction is
    the mean of the predicted distribution, in target units; the loss is in nats, less the entropy of the code, so
    that a perfect fit has loss 0.
    """

    outputs: int
    low: Any
    high: Any

    def centres(self) -> jax.Array:
        """Bin centres `[outputs]` in target units."""
        return jnp.linspace(self.low, self.high, self.outputs)

    def encode(self, y: jax.Array) -> jax.Array:
        """Targets `[batch]` to codes `[batch, outputs]`, rows summing to 1, at most two entries non-zero."""
        width = (self.high - self.low) / (self.outputs - 1)
        position = jnp.clip((y - self.low) / width, 0, self.outputs - 1)
        return jnp.maximum(0.0, 1.0 - jnp.abs(position[..., None] - jnp.arange(self.outputs)))

    def loss(self, outputs: jax.Array, y: jax.Array) -> jax.Array:
        code = self.encode(y)
        entropy = -jnp.sum(jax.scipy.special.xlogy(code, code), axis=-1)
        return optax.softmax_cross_entropy(outputs, code) - entropy

    def predict(self, outputs: jax.Array) -> jax.Array:
        return jax.nn.softmax(outputs) @ self.centres()

    def score(self, predictions: jax.Array, y: jax.Array) -> jax.Array:
        return r2_score(predictions, y)


Head = Softmax | Regression | TwoHot


def r2_score(predictions: jax.Array, y: jax.Array) -> jax.Array:
    """`max(0, R^2)` of predictions against targets, both `[batch]`; 0 where the targets do not vary."""
    variance = jnp.var(y)
    r2 = 1.0 - jnp.mean(jnp.square(predictions - y)) / jnp.where(variance > 0, variance, 1.0)
    return jnp.where(variance > 0, jnp.maximum(r2, 0.0), 0.0)
