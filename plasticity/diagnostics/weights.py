"""Ranks, spectral norm and distance from isometry of a layer's kernels.

A kernel is a leaf of two or more dimensions of what hangs on a top-level key of `params`. It is read as the matrix
W `[inputs, outputs]`: the last axis is outputs, all others are joined (a convolution: kh kw in), as Flax and Haiku lay
kernels out. Where a library has `[out, in]`, a dense layer's values are the same; a convolution must be transposed.
With singular values s_1 >= ... >= s_k, k = min(inputs, outputs):

    weight srank            min k with sum_{i<=k} s_i / sum_i s_i >= 1 - delta
    weight effective rank   exp(-sum_i p_i log p_i), p_i = s_i / sum s
    weight stable rank      sum_i s_i^2 / s_1^2
    weight numerical rank   number of s_i > eps max(inputs, outputs) s_1
    weight spectral norm    s_1
    isometry deviation      sum_i (s_i^2 - 1)^2 = ||W^T W - I||_F^2, for the smaller one of W^T W and W W^T

The ranges of the ranks are those in `rank`; the others are 0 to infinity. A layer's value is the mean over its
kernels, the network's the mean over all kernels. A layer without kernels (a normalisation) has no value. NaN or
infinity in a kernel gives NaN; a kernel without entries is left out.

Isometry deviation is 0 where W keeps all lengths on its smaller side. Code that takes ||W^T W - I|| on the larger side
adds |inputs - outputs|, a constant; a gain other than 1 (orthogonal initialisation with sqrt 2) is a deviation here.

Cost: one singular value decomposition a kernel, shared by all but the isometry deviation, which takes one product.
Always exact: kernels are small beside batches of activations.

References: as in `rank`; spectral norm: Lewandowski et al. 2024 (arXiv:2406.06811); isometry: Chung et al. 2024,
Parseval regularisation (arXiv:2412.07224), with s = 1. The names of the ranks collide as those of representations
do: "weight rank" has been the count of exact non-zeros among float singular values, which is always full.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from plasticity.diagnostics.arrays import Scalar
from plasticity.diagnostics.base import Observation, Reading, diagnostic
from plasticity.diagnostics.norms import by_layer
from plasticity.diagnostics.rank import (
    effective_rank_of_spectrum,
    gram,
    singular_values,
    srank_of_spectrum,
    stable_rank_of_spectrum,
)
from plasticity.diagnostics.spectrum import numerical_rank_of_spectrum

_COST = "one singular value decomposition a kernel, shared"


def as_matrix(kernel: Float[Array, "*inputs outputs"]) -> Float[Array, "inputs outputs"]:
    """A kernel with all axes but the last joined."""
    return kernel.reshape(math.prod(kernel.shape[:-1]), kernel.shape[-1])


def kernels(seen: Observation) -> dict[str, list[Array]]:
    """The kernels of `params` as matrices, by layer; layers without kernels are left out."""
    found: dict[str, list[Array]] = {}
    for name, leaves in by_layer(seen.params).items():
        matrices = [as_matrix(leaf) for leaf in leaves if leaf.ndim >= 2 and leaf.size]
        if matrices:
            found[name] = matrices
    return found


def _spectra(seen: Observation) -> dict[str, list[Array]]:
    return {name: [singular_values(w) for w in matrices] for name, matrices in seen.once(kernels).items()}


def isometry_deviation(w: Float[Array, "inputs outputs"]) -> Scalar:
    """||W^T W - I||_F^2, or with W W^T if that is smaller. Cost: one product."""
    products = gram(w)
    return jnp.sum((products - jnp.eye(products.shape[0], dtype=products.dtype)) ** 2)


def _mean(values: dict[str, list[Array]]) -> Reading:
    everything = [value for own in values.values() for value in own]
    whole = jnp.mean(jnp.stack(everything)) if everything else jnp.array(jnp.nan)
    return Reading(whole, {name: jnp.mean(jnp.stack(own)) for name, own in values.items()})


def _read(seen: Observation, measure: Callable[[Array], Array]) -> Reading:
    return _mean({name: [measure(s) for s in own] for name, own in seen.once(_spectra).items()})


@diagnostic(
    name="weight_srank",
    unit="directions",
    range=(0, float("inf")),
    needs=("params",),
    cost=_COST,
    reference="Kumar et al. 2021, arXiv:2010.14498",
)
def _weight_srank(seen: Observation, *, delta: float = 0.01) -> Reading:
    """Number of leading singular values of a kernel that hold 1 - delta of their sum; mean over kernels."""
    return _read(seen, lambda s: srank_of_spectrum(s, delta))


@diagnostic(
    name="weight_effective_rank",
    unit="directions",
    range=(0, float("inf")),
    needs=("params",),
    cost=_COST,
    reference="Roy & Vetterli 2007, EUSIPCO",
)
def _weight_effective_rank(seen: Observation) -> Reading:
    """exp of the entropy of a kernel's normalised singular values; mean over kernels."""
    return _read(seen, effective_rank_of_spectrum)


@diagnostic(
    name="weight_stable_rank",
    unit="directions",
    range=(0, float("inf")),
    needs=("params",),
    cost=_COST,
    reference="Rudelson & Vershynin 2007, arXiv:math/0503442",
)
def _weight_stable_rank(seen: Observation) -> Reading:
    """Squared Frobenius over squared spectral norm of a kernel; mean over kernels."""
    return _read(seen, stable_rank_of_spectrum)


@diagnostic(
    name="weight_numerical_rank",
    unit="directions",
    range=(0, float("inf")),
    needs=("params",),
    cost=_COST,
    reference="Golub & Van Loan 2013, section 5.4",
)
def _weight_numerical_rank(seen: Observation) -> Reading:
    """Number of a kernel's singular values above eps * max(inputs, outputs) * s_1; mean over kernels."""
    values = {
        name: [numerical_rank_of_spectrum(s, max(w.shape)) for s, w in zip(own, seen.once(kernels)[name], strict=True)]
        for name, own in seen.once(_spectra).items()
    }
    return _mean(values)


@diagnostic(
    name="weight_spectral_norm",
    unit="singular value",
    range=(0, float("inf")),
    needs=("params",),
    cost=_COST,
    reference="Lewandowski et al. 2024, arXiv:2406.06811",
)
def _weight_spectral_norm(seen: Observation) -> Reading:
    """Largest singular value of a kernel; mean over kernels."""
    return _read(seen, lambda s: s[0])


@diagnostic(
    name="isometry_deviation",
    unit="squared Frobenius norm",
    range=(0, float("inf")),
    needs=("params",),
    cost="one product a kernel",
    reference="Chung et al. 2024, arXiv:2412.07224",
)
def _isometry_deviation(seen: Observation) -> Reading:
    """||W^T W - I||_F^2 of a kernel on its smaller side, 0 if it keeps all lengths there; mean over kernels."""
    return _mean({name: [isometry_deviation(w) for w in own] for name, own in seen.once(kernels).items()})
