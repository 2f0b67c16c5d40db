"""Ranks of a layer's features: how many directions a representation uses.

For features Phi `[rows, features]` (positions of a feature map are rows) with singular values s_1 >= s_2 >= ...:

    srank           min k with sum_{i<=k} s_i / sum_i s_i >= 1 - delta                    0 .. min(rows, features)
    effective rank  exp(-sum_i p_i log p_i), p_i = s_i / sum s                            0 or 1 .. min(rows, features)
    stable rank     sum_i s_i^2 / s_1^2                                                   0 or 1 .. min(rows, features)
    feature rank    number of s_i / sqrt(rows) > epsilon                                  0 .. min(rows, features)

References: srank: Kumar et al. 2021 (arXiv:2010.14498). Effective rank: Roy & Vetterli 2007 (EUSIPCO). Feature
rank: Lyle et al. 2022 (arXiv:2204.09560), definition 2. Features are not centred, and the source's own batch is up to
5,000 rows: a batch smaller than the layer is wide caps every rank at the number of rows.

Further readings of the spectrum are in `spectrum`, ranks of weights in `weights`.

Names collide. "Stable rank" also stands for srank, and for the participation ratio of the centred covariance;
"approximate rank" is srank on squared singular values. Code for srank is found with k one too small, and for
feature rank without the square root of rows. A zero matrix has rank 0 in all four; NaN or infinity in the
features gives NaN.

Where singular values come from. A decomposition of Phi itself is exact. Eigenvalues of the Gram matrix Phi^T Phi (or
Phi Phi^T, whichever is smaller) are cheaper (by a third in `benchmarks/`), but in float32 they lose whatever is below
1e-3 of s_1, and are set to 0 there. Three kinds of diagnostics follow from that; `paths` tells which kind ran.

    squares only     stable rank, PCA rank, top singular value, its share of the energy: what is lost is below 1e-6
                     of the largest square each, so the Gram matrix is used unless somebody else needs the
                     decomposition anyway
    unsquared sums   srank, effective rank, top singular value's share of the sum: exact by default. With
                     `diagnose(spectrum="gram")` from the Gram matrix, which is the same as long as no sizeable part of
                     the sum lies in values below 1e-3 of s_1 (512 features, s = 1, 2e-4, 2e-4, ...: srank 1, not 457)
    small values     feature rank, numerical rank, condition number: always exact

A batch smaller than the layer is wide caps every rank at the number of rows; `rank_cap` is recorded with the ranks,
and `warn_if_capped` says so once. `diagnose` itself never warns: it is pure, and runs inside compiled programs.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from plasticity.diagnostics.arrays import Scalar, as_rows, magnitude, scaled_rows
from plasticity.diagnostics.base import (
    SPECTRA,
    Layer,
    Observation,
    Reading,
    diagnostic,
    diagnostics,
    get,
    over_layers,
)
from plasticity.errors import unknown


def singular_values(phi: Float[Array, "*batch features"]) -> Float[Array, " k"]:
    """Singular values, descending, k = min(rows, features); all NaN if an entry is not finite.

    Cost: O(rows * features * min(rows, features)), one decomposition.
    """
    x, top = scaled_rows(phi)
    # Without vectors, too, full matrices would be made room for: rows x rows.
    return jnp.linalg.svd(x, full_matrices=False, compute_uv=False) * top


def gram(x: Float[Array, "rows columns"]) -> Float[Array, "k k"]:
    """The smaller one of x^T x and x x^T. Cost: rows * columns * k, k the smaller of the two."""
    x = x.T if x.shape[0] < x.shape[1] else x
    # Full precision: an accelerator's default for float32 products keeps 10 bits.
    return jnp.matmul(x.T, x, precision="highest")


def gram_singular_values(phi: Float[Array, "*batch features"]) -> Float[Array, " k"]:
    """As `singular_values`, from eigenvalues of the smaller Gram matrix: those below 1e-3 of the largest read 0.

    Cost: one product and one symmetric eigenvalue problem of the smaller size.
    """
    x, top = scaled_rows(phi)
    values = jnp.linalg.eigvalsh(gram(x))[::-1]
    # Rounding leaves eigenvalues of up to 3 eps times the largest where there is nothing.
    floor = 8 * jnp.finfo(values.dtype).eps * values[0]
    return jnp.sqrt(jnp.where(values > floor, values, 0.0)) * top


def spectrum_of(layer: Layer, seen: Observation) -> Float[Array, " k"]:
    """A layer's singular values by the path that this call of `diagnose` takes, computed once a layer."""
    return layer.once(singular_values if seen.shared_spectrum else gram_singular_values)


def paths(choose: Iterable[str] | None = None, spectrum: str = "exact") -> dict[str, str]:
    """How `diagnose` with this choice gets each chosen diagnostic that reads singular values of activations.

    choose, spectrum: as for `diagnose`; None means all. Values: "svd" for a decomposition of the features, "gram" for
    eigenvalues of their Gram matrix. Raises `UserError` on an unknown name.
    """
    names = diagnostics() if choose is None else [choose] if isinstance(choose, str) else list(choose)
    chosen = {name: get(name).needs for name in names}
    decisive = "singular_values" if spectrum == "exact" else "exact_singular_values"
    if spectrum not in SPECTRA:
        raise unknown("spectrum", spectrum, SPECTRA)
    path = "svd" if any(decisive in needs for needs in chosen.values()) else "gram"
    return {name: path for name, needs in chosen.items() if any(need.endswith("singular_values") for need in needs)}


def rank_caps(activations: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Layers with fewer rows than features: name -> (rows, features). No rank of theirs can exceed the rows.

    activations: as for `diagnose`. Rows are batch times positions.
    """
    caps = {}
    for name, value in activations.items():
        post = value[1] if isinstance(value, tuple) and len(value) == 2 else value
        shape = jnp.shape(post)
        rows = math.prod(shape[:-1])
        if len(shape) >= 2 and rows < shape[-1]:
            caps[name] = (rows, shape[-1])
    return caps


_warned: set[tuple[tuple[str, int, int], ...]] = set()


def warn_if_capped(activations: Mapping[str, Any], stacklevel: int = 2) -> None:
    """Warn (`UserWarning`) if a batch is smaller than a layer is wide; once in a process for the same layers and sizes.

    For loops that measure eagerly; `Monitor` calls it. Shapes alone are read, so it can be called under `jit` too.
    stacklevel: whose line the warning names, as for `warnings.warn`; 2 is the caller's.
    """
    caps = rank_caps(activations)
    known = tuple(sorted((str(name), *sizes) for name, sizes in caps.items()))
    if caps and known not in _warned:
        _warned.add(known)
        layers = ", ".join(f"{name}: {rows} rows, {features} features" for name, (rows, features) in caps.items())
        warnings.warn(
            f"ranks are capped by the number of rows ({layers}); measure on a batch larger than the layers are wide",
            UserWarning,
            stacklevel=stacklevel,
        )


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
    x, top = scaled_rows(phi)
    products = gram(x)
    largest = jnp.linalg.eigvalsh(products)[-1]
    return jnp.where(jnp.isnan(top), jnp.nan, jnp.trace(products) / jnp.where(largest > 0, largest, 1.0))


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
    return over_layers(seen.layers, lambda layer: srank_of_spectrum(spectrum_of(layer, seen), delta))


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
    return over_layers(seen.layers, lambda layer: effective_rank_of_spectrum(spectrum_of(layer, seen)))


@diagnostic(
    name="feature_rank",
    unit="directions",
    range=(0, float("inf")),
    needs=("activations", "singular_values", "exact_singular_values"),
    cost="one singular value decomposition a layer, shared",
    reference="Lyle et al. 2022, arXiv:2204.09560, definition 2",
)
def _feature_rank(seen: Observation, *, epsilon: float = 0.01) -> Reading:
    """Number of singular values of Phi / sqrt(rows) above epsilon; the network's value is the mean over layers."""

    def measure(layer: Layer) -> Array:
        return feature_rank_of_spectrum(layer.once(singular_values), layer.post.shape[0], epsilon)

    return over_layers(seen.layers, measure)


@diagnostic(
    name="stable_rank",
    unit="directions",
    range=(0, float("inf")),
    needs=("activations", "squared_singular_values"),
    cost="one eigenvalue problem a layer, or the shared singular values",
    reference="Rudelson & Vershynin 2007, arXiv:math/0503442",
)
def _stable_rank(seen: Observation) -> Reading:
    """Squared Frobenius over squared spectral norm of the features; the network's value is the mean over layers."""
    return over_layers(seen.layers, lambda layer: stable_rank_of_spectrum(spectrum_of(layer, seen)))
