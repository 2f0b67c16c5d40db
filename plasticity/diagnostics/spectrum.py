"""More readings of a layer's spectrum: PCA rank, participation ratio, numerical rank, top direction, condition.

For features Phi `[rows, features]` (positions of a feature map are rows) with singular values s_1 >= s_2 >= ... >= s_k,
k = min(rows, features):

    PCA rank                         min k with sum_{i<=k} s_i^2 / sum_i s_i^2 >= 1 - delta           0 .. k
    participation ratio              (sum l_i)^2 / sum l_i^2, l: eigenvalues of the covariance       0 or 1 .. k
    numerical rank                   number of s_i > eps max(rows, features) s_1                      0 .. k
    top singular value               s_1                                                              0 .. inf
    top singular share of sum        s_1 / sum_i s_i                                                  0 .. 1
    top singular share of energy     s_1^2 / sum_i s_i^2 = 1 / stable rank                            0 .. 1
    top singular mean alignment      |sum_x u_1(x)| / sqrt(rows), u_1: left singular vector of s_1    0 .. 1
    condition number                 s_1 / s_k, infinite if s_k counts as 0 in the numerical rank     0, 1 .. inf
    rank cap                         min(rows, features)                                              1 .. inf

Only the participation ratio is of centred features, as in its literature; "PCA rank" is centred nowhere. The mean
feature is often the top direction: then the alignment is near 1, which says that the first singular value is the
mean's. If s_1 = s_2, u_1 is not unique and neither is the alignment. eps is that of float32 (1.2e-7) also for
integers and half precision. s_1 grows with the square root of rows, the others do not change if the batch is
doubled, but for the numerical rank's and the condition's threshold. A dead unit makes the condition infinite as
soon as rows >= features. A zero matrix reads 0 in all, but for the cap; NaN or infinity in the features gives NaN.

Which path (decomposition or Gram matrix) each takes is described in `rank` and told by `rank.paths`; the
participation ratio is tr(C)^2 / ||C||_F^2 of the smaller Gram matrix and needs neither, and the alignment always
takes the eigenvector of the smaller Gram matrix.

References: PCA rank: Yang et al. 2019 (arXiv:1909.12255). Participation ratio: Gao et al. 2017 (doi:10.1101/214262).
Numerical rank: Golub & Van Loan. Names collide: "approximate rank" is the PCA rank in one place and srank in another;
"stable rank" has been written over a participation ratio.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from plasticity.diagnostics.arrays import Scalar, magnitude, safe_ratio, scaled_rows
from plasticity.diagnostics.base import Layer, Observation, Reading, diagnostic, over_layers
from plasticity.diagnostics.rank import gram, gram_singular_values, singular_values, spectrum_of, srank_of_spectrum

_SHARED = "eigenvalues of the smaller Gram matrix, or the shared singular values"


def pca_rank(phi: Float[Array, "*batch features"], delta: float = 0.01) -> Scalar:
    """Smallest k whose first k squared singular values hold the share 1 - delta of their sum. From the Gram matrix."""
    return pca_rank_of_spectrum(gram_singular_values(phi), delta)


def participation_ratio(phi: Float[Array, "*batch features"]) -> Scalar:
    """tr(C)^2 / ||C||_F^2 of the covariance C over rows. Cost: one product; no decomposition."""
    x, top = scaled_rows(phi)
    spread = x - jnp.mean(x, axis=0)
    # Equal rows leave rounding only.
    constant = jnp.max(jnp.abs(spread), axis=0) <= 8 * jnp.finfo(x.dtype).eps * jnp.max(jnp.abs(x), axis=0)
    spread = jnp.where(constant, 0.0, spread)
    c = gram(spread / magnitude(spread))
    return jnp.where(jnp.isnan(top), jnp.nan, safe_ratio(jnp.trace(c) ** 2, jnp.sum(c**2)))


def numerical_rank(phi: Float[Array, "*batch features"]) -> Scalar:
    """Number of singular values above eps * max(rows, features) * s_1. Cost: `singular_values`."""
    return numerical_rank_of_spectrum(singular_values(phi), max(scaled_rows(phi)[0].shape))


def condition_number(phi: Float[Array, "*batch features"]) -> Scalar:
    """s_1 / s_min, infinite for a matrix without full numerical rank, 0 for a zero matrix. Cost: `singular_values`."""
    return condition_of_spectrum(singular_values(phi), max(scaled_rows(phi)[0].shape))


def top_mean_alignment(phi: Float[Array, "*batch features"]) -> Scalar:
    """|cosine| between the left singular vector of s_1 and the constant vector over rows.

    Equal to sqrt(rows) |mean feature . v_1| / s_1. Cost: one symmetric eigenvalue problem with vectors.
    """
    x, top = scaled_rows(phi)
    rows, features = x.shape
    _, vectors = jnp.linalg.eigh(gram(x))
    first = vectors[:, -1]
    left = first if rows < features else jnp.matmul(x, first, precision="highest")
    value = safe_ratio(jnp.abs(jnp.sum(left)), jnp.linalg.norm(left) * rows**0.5)
    # Of zeros any vector is an eigenvector.
    return jnp.where(jnp.isnan(top), jnp.nan, jnp.where((x != 0).any(), jnp.minimum(value, 1.0), 0.0))


def pca_rank_of_spectrum(s: Float[Array, " k"], delta: float = 0.01) -> Scalar:
    """`pca_rank` from singular values in descending order."""
    return srank_of_spectrum((s / magnitude(s)) ** 2, delta)


def numerical_rank_of_spectrum(s: Float[Array, " k"], larger_side: int) -> Scalar:
    """`numerical_rank` from singular values in descending order; larger_side is max(rows, features)."""
    count = jnp.sum(s > jnp.finfo(s.dtype).eps * larger_side * s[0])
    return jnp.where(jnp.isfinite(s[0]), count.astype(s.dtype), jnp.nan)


def condition_of_spectrum(s: Float[Array, " k"], larger_side: int) -> Scalar:
    """`condition_number` from singular values in descending order; larger_side is max(rows, features)."""
    full = s[-1] > jnp.finfo(s.dtype).eps * larger_side * s[0]
    value = jnp.where(full, s[0] / jnp.where(full, s[-1], 1.0), jnp.where(s[0] > 0, jnp.inf, 0.0))
    return jnp.where(jnp.isfinite(s[0]), value, jnp.nan)


def _share(s: Float[Array, " k"], power: int) -> Scalar:
    s = (s / magnitude(s)) ** power
    return safe_ratio(s[0], jnp.sum(s))


def _larger_side(layer: Layer) -> int:
    return max(layer.post.shape)


@diagnostic(
    name="pca_rank",
    unit="directions",
    range=(0, float("inf")),
    needs=("activations", "squared_singular_values"),
    cost=_SHARED,
    reference="Yang et al. 2019, arXiv:1909.12255",
)
def _pca_rank(seen: Observation, *, delta: float = 0.01) -> Reading:
    """Number of leading squared singular values that hold 1 - delta of their sum, not centred; network: mean."""
    return over_layers(seen.layers, lambda layer: pca_rank_of_spectrum(spectrum_of(layer, seen), delta))


@diagnostic(
    name="participation_ratio",
    unit="directions",
    range=(0, float("inf")),
    needs=("activations",),
    cost="one product a layer, no decomposition",
    reference="Gao et al. 2017, doi:10.1101/214262",
)
def _participation_ratio(seen: Observation) -> Reading:
    """Squared trace over squared Frobenius norm of the features' covariance; network: the layers' mean."""
    return over_layers(seen.layers, lambda layer: layer.once(participation_ratio))


@diagnostic(
    name="numerical_rank",
    unit="directions",
    range=(0, float("inf")),
    needs=("activations", "singular_values", "exact_singular_values"),
    cost="one singular value decomposition a layer, shared",
    reference="Golub & Van Loan 2013, section 5.4",
)
def _numerical_rank(seen: Observation) -> Reading:
    """Number of singular values above eps * max(rows, features) * s_1; the network's value is the mean over layers."""

    def measure(layer: Layer) -> Array:
        return numerical_rank_of_spectrum(spectrum_of(layer, seen), _larger_side(layer))

    return over_layers(seen.layers, measure)


@diagnostic(
    name="condition_number",
    unit="ratio",
    range=(0, float("inf")),
    needs=("activations", "singular_values", "exact_singular_values"),
    cost="one singular value decomposition a layer, shared",
    reference="Golub & Van Loan 2013, section 2.6",
)
def _condition_number(seen: Observation) -> Reading:
    """Largest over smallest singular value of the features, infinite without full numerical rank; network: mean."""

    def measure(layer: Layer) -> Array:
        return condition_of_spectrum(spectrum_of(layer, seen), _larger_side(layer))

    return over_layers(seen.layers, measure)


@diagnostic(
    name="top_singular_value",
    unit="singular value",
    range=(0, float("inf")),
    needs=("activations", "squared_singular_values"),
    cost=_SHARED,
    reference="standard",
)
def _top_singular_value(seen: Observation) -> Reading:
    """Largest singular value of the features, not divided by the root of rows; network: the layers' mean."""
    return over_layers(seen.layers, lambda layer: spectrum_of(layer, seen)[0])


@diagnostic(
    name="top_singular_share_of_sum",
    unit="share of the sum",
    range=(0, 1 + 1e-5),
    needs=("activations", "singular_values"),
    cost="one singular value decomposition a layer, shared",
    reference="standard",
)
def _top_singular_share_of_sum(seen: Observation) -> Reading:
    """Largest singular value over the sum of all; the network's value is the mean over layers."""
    return over_layers(seen.layers, lambda layer: _share(spectrum_of(layer, seen), 1))


@diagnostic(
    name="top_singular_share_of_energy",
    unit="share of the squared norm",
    range=(0, 1 + 1e-5),
    needs=("activations", "squared_singular_values"),
    cost=_SHARED,
    reference="standard",
)
def _top_singular_share_of_energy(seen: Observation) -> Reading:
    """Largest squared singular value over the sum of squares, one over the stable rank; network: the layers' mean."""
    return over_layers(seen.layers, lambda layer: _share(spectrum_of(layer, seen), 2))


@diagnostic(
    name="top_singular_mean_alignment",
    unit="absolute cosine",
    range=(0, 1),
    needs=("activations",),
    cost="an eigenvalue problem with vectors, of the smaller Gram matrix, a layer",
    reference="the suite's; mean features in ill-conditioned learning: Lyle et al. 2024, arXiv:2402.18762",
)
def _top_singular_mean_alignment(seen: Observation) -> Reading:
    """|cosine| of the top left singular vector with the constant vector: 1 if the top direction is the mean's."""
    return over_layers(seen.layers, lambda layer: top_mean_alignment(layer.post))


@diagnostic(
    name="rank_cap",
    unit="directions",
    range=(1, float("inf")),
    needs=("activations",),
    cost="none",
    reference="none: min(rows, features)",
)
def _rank_cap(seen: Observation) -> Reading:
    """The largest rank that a layer's features can have, min(rows, features); network: the layers' mean."""
    return over_layers(seen.layers, lambda layer: jnp.asarray(min(layer.post.shape), layer.post.dtype))
