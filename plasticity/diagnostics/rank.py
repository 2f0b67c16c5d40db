"""Ranks of a layer's features: how many directions a representation uses.

For features Phi `[rows, features]` (positions of a feature map are rows) with singular values s_1 >= s_2 >= ...:

    srank           min k with sum_{i<=k} s_i / sum_i s_i >= 1 - delta                    0 .. min(rows, features)
    effective rank  exp(-sum_i p_i log p_i), p_i = s_i / sum s                            0 or 1 .. min(rows, features)
    stable rank     sum_i s_i^2 / s_1^2                                                   0 or 1 .. min(rows, features)
    feature rank    number of s_i / sqrt(rows) > epsilon                                  0 .. min(rows, features)

References: srank: Kumar et al. 2021 (arXiv:2010.14498). Effective rank: Roy & Vetterli 2007 (EUSIPCO). Feature
rank: Lyle et al. 2022 (arXiv:2204.09560), definition 2. Features are not centred, and the source's own batch is up to
5,000 rows: a batch smaller than the layer is wide caps every rank at the number of rows.

Names collide. "Stable rank" also stands for srank, and for the participation ratio of the centred covariance;
"approximate rank" is srank on squared singular values. Code for srank is found with k one too small, and for
feature rank without the square root of rows. A zero matrix has rank 0 in all four; NaN or infinity in the
features gives NaN.

Singular values come from a decomposition of Phi itself. The eigenvalues of Phi^T Phi cost half as much, but in
float32 they lose whatever is below 3e-4 of s_1, and just the collapsed representations that one looks for are
misjudged (512 features, s = 1, 1e-6, 1e-6, ...: srank 26 instead of 1). Only s_1, for the stable rank, is taken
from there.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from plasticity.diagnostics.arrays import Scalar, as_rows, magnitude
from plasticity.diagnostics.base import Layer, Observation, Reading, diagnostic, per_layer


def _scaled(phi: Float[Array, "*batch features"]) -> tuple[Float[Array, "rows features"], Scalar]:
    """Rows over their magnitude, and the magnitude, NaN if an entry is not finite."""
    x = as_rows(phi)
    finite = jnp.isfinite(x).all()
    # Zeros in place of NaN: decompositions may fail to converge on NaN, and slow a whole batch of runs down.
    x = jnp.where(finite, x, 0.0)
    return x / magnitude(x), jnp.where(finite, magnitude(x), jnp.nan)


def singular_values(phi: Float[Array, "*batch features"]) -> Float[Array, " k"]:
    """Singular values, descending, k = min(rows, features); all NaN if an entry is not finite.

    Cost: O(rows * features * min(rows, features)), one decomposition.
    """
    x, top = _scaled(phi)
    return jnp.linalg.svd(x, compute_uv=False) * top


def srank(phi: Float[Array, "*batch features"], delta: float = 0.01) -> Scalar:
    """Smallest k whose first k singular values hold the share 1 - delta of their (unsquared) sum."""
    return srank_of_spectrum(singular_values(phi), delta)


def effective_rank(phi: Float[Array, "*batch features"]) -> Scalar:
    """exp of the entropy (in nats) of the singular values as a distribution; 0 log 0 = 0."""
    return effective_rank_of_spectrum(singular_values(phi))


def feature_rank(phi: Float[Array, "*batch features"], epsilon: float = 0.01) -> Scalar:
    """Number of singular values of Phi / sqrt(rows) above epsilon: absolute, so it falls with the features' norm."""
    return feature_rank_of_spectrum(singular_values(phi), as_rows(phi).shape[0], epsilon)


def stable_rank(phi: Float[Array, "*batch features"]) -> Scalar:
    """Squared Frobenius norm over squared spectral norm.

    Cost: the largest eigenvalue of the smaller Gram matrix, about half of `singular_values`, and as accurate.
    """
    x, top = _scaled(phi)
    x = x.T if x.shape[0] < x.shape[1] else x
    # Full precision: an accelerator's default for float32 products keeps 10 bits.
    gram = jnp.matmul(x.T, x, precision="highest")
    largest = jnp.linalg.eigvalsh(gram)[-1]
    return jnp.where(jnp.isnan(top), jnp.nan, jnp.trace(gram) / jnp.where(largest > 0, largest, 1.0))


def srank_of_spectrum(s: Float[Array, " k"], delta: float = 0.01) -> Scalar:
    """`srank` from singular values in descending order."""
    p = _relative(s)
    total = jnp.sum(p)
    # Counting those not yet there, plus the one that gets there.
    short = jnp.cumsum(p) < (1 - delta) * total
    return _nan_or(s, jnp.where(total > 0, jnp.minimum(jnp.sum(short) + 1, s.shape[0]), 0))


def effective_rank_of_spectrum(s: Float[Array, " k"]) -> Scalar:
    """`effective_rank` from singular values in descending order."""
    p = _relative(s)
    total = jnp.sum(p)
    p = p / jnp.where(total > 0, total, 1.0)
    entropy = -jnp.sum(p * jnp.log(jnp.where(p > 0, p, 1.0)))
    return _nan_or(s, jnp.where(total > 0, jnp.exp(entropy), 0.0))


def feature_rank_of_spectrum(s: Float[Array, " k"], rows: int, epsilon: float = 0.01) -> Scalar:
    """`feature_rank` from the singular values of features with so many rows."""
    return _nan_or(s, jnp.sum(s / rows**0.5 > epsilon))


def stable_rank_of_spectrum(s: Float[Array, " k"]) -> Scalar:
    """`stable_rank` from singular values in descending order."""
    return _nan_or(s, jnp.sum(_relative(s) ** 2))


def _relative(s: Float[Array, " k"]) -> Float[Array, " k"]:
    """Singular values over the largest one; zeros if all are zero."""
    s = s / magnitude(s)
    return s / jnp.where(s[0] > 0, s[0], 1.0)


def _nan_or(s: Float[Array, " k"], value: Array) -> Scalar:
    return jnp.where(jnp.isfinite(s[0]), value.astype(s.dtype), jnp.nan)


def _mean(layers: dict[str, Array]) -> Reading:
    """The network's value is the mean over layers: there is no order among a mapping's keys that names a last one."""
    return Reading(jnp.mean(jnp.stack(list(layers.values()))) if layers else jnp.array(jnp.nan), layers)


@diagnostic(
    name="srank",
    unit="directions",
    range=(0, float("inf")),
    needs=("activations", "singular_values"),
    cost="one singular value decomposition a layer, shared",
    reference="Kumar et al. 2021, arXiv:2010.14498",
)
def _srank(seen: Observation, *, delta: float = 0.01) -> Reading:
    """Number of leading singular values that hold 1 - delta of their sum; whole network: mean over layers."""
    return _mean(per_layer(seen.layers, lambda layer: srank_of_spectrum(layer.once(singular_values), delta)))


@diagnostic(
    name="effective_rank",
    unit="directions",
    range=(0, float("inf")),
    needs=("activations", "singular_values"),
    cost="one singular value decomposition a layer, shared",
    reference="Roy & Vetterli 2007, EUSIPCO",
)
def _effective_rank(seen: Observation) -> Reading:
    """exp of the entropy of the normalised singular values; the network's value is the mean over layers."""
    return _mean(per_layer(seen.layers, lambda layer: effective_rank_of_spectrum(layer.once(singular_values))))


@diagnostic(
    name="feature_rank",
    unit="directions",
    range=(0, float("inf")),
    needs=("activations", "singular_values"),
    cost="one singular value decomposition a layer, shared",
    reference="Lyle et al. 2022, arXiv:2204.09560, definition 2",
)
def _feature_rank(seen: Observation, *, epsilon: float = 0.01) -> Reading:
    """Number of singular values of Phi / sqrt(rows) above epsilon; the network's value is the mean over layers."""

    def measure(layer: Layer) -> Array:
        return feature_rank_of_spectrum(layer.once(singular_values), layer.post.shape[0], epsilon)

    return _mean(per_layer(seen.layers, measure))


@diagnostic(
    name="stable_rank",
    unit="directions",
    range=(0, float("inf")),
    needs=("activations",),
    cost="one eigenvalue problem a layer, or the shared singular values",
    reference="Rudelson & Vershynin 2007, arXiv:math/0503442",
)
def _stable_rank(seen: Observation) -> Reading:
    """Squared Frobenius over squared spectral norm of the features; the network's value is the mean over layers."""

    def measure(layer: Layer) -> Array:
        return stable_rank_of_spectrum(layer.once(singular_values)) if seen.shared_spectrum else stable_rank(layer.post)

    return _mean(per_layer(seen.layers, measure))
