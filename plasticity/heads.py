"""Output heads: how network outputs become a loss, a prediction and a score.

A head owns the number of outputs, `loss(outputs, y) -> [batch]`, `predict(outputs) -> [batch]` and
`score(predictions, y, weight) -> scalar in [0, 1]`, weight being that of each example in a mean. A classification score
is accuracy. A regression score is `max(0, R^2)`, with R^2 = 1 - mean squared error / variance of the targets: 0 is no
better than predicting the mean of the current targets, 1 is a perfect fit, and the scale of the targets cancels, so
that growing targets can be compared over time.

smoothing: share of a code's weight that is spread evenly over all classes or bins (label smoothing, Szegedy et al.
2016, arXiv:1512.00567): (1 - smoothing) code + smoothing / outputs. It may be traced; with 0 every number is that of
the plain head.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import optax


def _nothing(strength: Any) -> bool:
    """Whether a strength is known to be zero when a program is made, which then need not have it."""
    return isinstance(strength, int | float) and strength == 0


@dataclass(frozen=True)
class Softmax:
    """Cross-entropy over `outputs` classes; `y` holds int class labels. Loss in nats.

    An output of minus infinity is of a class that is not there; smoothing spreads its weight over the others.
    """

    outputs: int
    smoothing: Any = 0.0

    def loss(self, outputs: jax.Array, y: jax.Array) -> jax.Array:
        plain = optax.softmax_cross_entropy_with_integer_labels(outputs, y)
        if _nothing(self.smoothing):
            return plain
        there = outputs > -jnp.inf
        logs = jnp.where(there, jax.nn.log_softmax(outputs), 0.0)
        even = -jnp.sum(logs, axis=-1) / jnp.sum(there, axis=-1)
        return (1 - self.smoothing) * plain + self.smoothing * even

    def predict(self, outputs: jax.Array) -> jax.Array:
        return jnp.argmax(outputs, axis=-1)

    def score(self, predictions: jax.Array, y: jax.Array, weight: jax.Array | None = None) -> jax.Array:
        return average(predictions == y, weight)


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

    def score(self, predictions: jax.Array, y: jax.Array, weight: jax.Array | None = None) -> jax.Array:
        return r2_score(predictions, y, weight)


@dataclass(frozen=True)
class _Binned:
    """A distribution over `outputs` evenly spaced bins with centres over `[low, high]`, in target units.

    The prediction is its mean; the loss is cross-entropy in nats against `encode(y)`, less that code's entropy, so that
    a perfect fit has loss 0. Targets beyond the support are clipped to it.
    """

    outputs: int
    low: Any
    high: Any
    smoothing: Any = field(default=0.0, kw_only=True)

    @property
    def width(self) -> Any:
        """Distance of two centres, in target units."""
        return (self.high - self.low) / (self.outputs - 1)

    def centres(self) -> jax.Array:
        """Bin centres `[outputs]` in target units."""
        return jnp.linspace(self.low, self.high, self.outputs)

    def encode(self, y: jax.Array) -> jax.Array:
        """Targets `[...]` to codes `[..., outputs]`, rows summing to 1."""
        raise NotImplementedError

    def smoothed(self, code: jax.Array) -> jax.Array:
        """The code that is trained on. Its mean is `smoothing` of the way from the target to the support's middle."""
        if _nothing(self.smoothing):
            return code
        return (1 - self.smoothing) * code + self.smoothing / self.outputs

    def divergence(self, outputs: jax.Array, code: jax.Array) -> jax.Array:
        """Kullback-Leibler divergence of the predicted distribution from `code`, in nats."""
        entropy = -jnp.sum(jax.scipy.special.xlogy(code, code), axis=-1)
        return optax.softmax_cross_entropy(outputs, code) - entropy

    def loss(self, outputs: jax.Array, y: jax.Array) -> jax.Array:
        return self.divergence(outputs, self.smoothed(self.encode(y)))

    def predict(self, outputs: jax.Array) -> jax.Array:
        return jax.nn.softmax(outputs) @ self.centres()

    def score(self, predictions: jax.Array, y: jax.Array, weight: jax.Array | None = None) -> jax.Array:
        return r2_score(predictions, y, weight)


@dataclass(frozen=True)
class TwoHot(_Binned):
    """A target between two bin centres puts weight on both, so that the mean of the code is the target.

    (Schrittwieser et al. 2020, arXiv:1911.08265.) At most two entries of a code are not zero.
    """

    def encode(self, y: jax.Array) -> jax.Array:
        position = jnp.clip((y - self.low) / self.width, 0, self.outputs - 1)
        return jnp.maximum(0.0, 1.0 - jnp.abs(position[..., None] - jnp.arange(self.outputs)))


@dataclass(frozen=True)
class HLGauss(_Binned):
    """A code is a Gaussian around the target, integrated over each bin and renormalised to the support.

    Its standard deviation is `spread` bin widths (Imani & White 2018, arXiv:1806.04613; for values Farebrother et al.
    2024, arXiv:2403.03950, with .75).
    """

    spread: Any = 0.75

    def encode(self, y: jax.Array) -> jax.Array:
        y = jnp.clip(y, self.low, self.high)[..., None]
        edges = self.low + (jnp.arange(self.outputs + 1) - 0.5) * self.width
        mass = jax.scipy.special.ndtr((edges - y) / (self.spread * self.width))
        code = mass[..., 1:] - mass[..., :-1]
        return code / jnp.sum(code, axis=-1, keepdims=True)


@dataclass(frozen=True)
class Categorical(_Binned):
    """The return distribution of C51 (Bellemare et al. 2017, arXiv:1707.06887): bins are atoms, targets distributions.

    It does not encode numbers: `project` moves a distribution on shifted atoms back onto the support.
    """

    def project(self, atoms: jax.Array, probabilities: jax.Array) -> jax.Array:
        """Distributions `probabilities[..., n]` on `atoms[..., n]` to `[..., outputs]` on the support.

        Each atom, clipped to the support, is shared between its two neighbours in proportion to nearness: the clipped
        triangular kernel of the source's algorithm 1, with the mean kept as far as nothing is clipped.
        """
        position = jnp.clip((atoms - self.low) / self.width, 0, self.outputs - 1)
        share = jnp.clip(1.0 - jnp.abs(position[..., None] - jnp.arange(self.outputs)), 0.0, 1.0)
        return jnp.einsum("...n,...nk->...k", probabilities, share)


Head = Softmax | Regression | TwoHot | HLGauss | Categorical


def average(values: jax.Array, weight: jax.Array | None) -> jax.Array:
    """Mean of `[batch, ...]` over all axes, weighted along the first if there are weights `[batch]`.

    What has no weight may be infinite.
    """
    if weight is None:
        return jnp.mean(values)
    per_example = jnp.mean(values.reshape(values.shape[0], -1), axis=1)
    return jnp.sum(jnp.where(weight > 0, weight * per_example, 0.0)) / jnp.sum(weight)


def explained(error: jax.Array, variance: jax.Array, varies: jax.Array) -> jax.Array:
    """`max(0, R^2)` from the mean squared error and the targets' variance; 0 unless the targets vary."""
    r2 = 1.0 - error / jnp.where(varies, variance, 1.0)
    return jnp.where(varies, jnp.maximum(r2, 0.0), 0.0)


def r2_score(predictions: jax.Array, y: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """`max(0, R^2)` of predictions against targets, both `[batch]`; 0 where the targets do not vary."""
    variance = average(jnp.square(y - average(y, weight)), weight)
    return explained(average(jnp.square(predictions - y), weight), variance, variance > 0)
