"""What a Gram matrix says: how many directions its eigenvalues span, and how it splits into diagonal plus low rank.

For a symmetric positive semi-definite K `[n, n]` with eigenvalues l_1 >= l_2 >= ...:

    effective rank   exp(-sum_i p_i log p_i), p_i = l_i / sum l              0, or 1 .. n
    srank            min k with sum_{i<=k} l_i / sum_i l_i >= 1 - delta      0 .. n
    condition        l_1 / l_n                                               1 .. inf
    top share        l_1 / sum_i l_i                                         0, or 1 / n .. 1

Each takes the matrix, or its eigenvalues `[n]` in descending order from `kernel_eigenvalues`, so that one decomposition
serves all. These are of the eigenvalues of K, not of the singular values of the gradients, their roots. Negative
eigenvalues are rounding and count as 0. A zero matrix has ranks and share 0 and an infinite condition; NaN gives NaN.

References: effective rank: Roy & Vetterli 2007 (EUSIPCO); srank: Kumar et al. 2021 (arXiv:2010.14498); kernels that
become diagonal plus low rank as plasticity is lost: Lyle et al. 2024 (arXiv:2402.18762), section 3.3.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from plasticity.diagnostics.base import Scalar, magnitude, safe_ratio
from plasticity.diagnostics.rank import effective_rank_of_spectrum, srank_of_spectrum
from plasticity.diagnostics.standalone import standalone
from plasticity.errors import UserError

Kernel = Float[Array, "n n"] | Float[Array, " n"]
LYLE_2024 = "Lyle et al. 2024, arXiv:2402.18762"


class DiagonalPlusLowRank(NamedTuple):
    """K = diag(diagonal) + factors factors^T + rest.

    residual: norm of the rest over norm of K. off_diagonal_residual: the same, of what is off the diagonal alone: 0 if
    the low rank explains how inputs interact. diagonal_share: sum of `diagonal` over the trace of K.
    """

    diagonal: Float[Array, " n"]
    factors: Float[Array, "n rank"]
    residual: Scalar
    off_diagonal_residual: Scalar
    diagonal_share: Scalar


def kernel_eigenvalues(kernel: Float[Array, "n n"]) -> Float[Array, " n"]:
    """Eigenvalues of a Gram matrix, descending, at least 0; NaN where an entry is not finite. Cost: O(n^3)."""
    k, scale = _scaled(kernel)
    return jnp.maximum(jnp.linalg.eigvalsh(k)[::-1], 0) * scale


@standalone(
    name="kernel_effective_rank",
    unit="directions",
    range=(0, float("inf")),
    cost="eigenvalues of an n by n matrix",
    reference="Roy & Vetterli 2007, EUSIPCO",
)
def kernel_effective_rank(kernel: Kernel) -> Scalar:
    """exp of the entropy (in nats) of the eigenvalues of a Gram matrix as a distribution."""
    return effective_rank_of_spectrum(_spectrum(kernel))


@standalone(
    name="kernel_srank",
    unit="directions",
    range=(0, float("inf")),
    cost="eigenvalues of an n by n matrix",
    reference="Kumar et al. 2021, arXiv:2010.14498",
)
def kernel_srank(kernel: Kernel, delta: float = 0.01) -> Scalar:
    """Smallest number of eigenvalues of a Gram matrix that hold the share 1 - delta of its trace."""
    return srank_of_spectrum(_spectrum(kernel), delta)


@standalone(
    name="kernel_condition",
    unit="ratio",
    range=(1, float("inf")),
    cost="eigenvalues of an n by n matrix",
    reference="standard",
)
def kernel_condition(kernel: Kernel) -> Scalar:
    """Largest over smallest eigenvalue of a Gram matrix.

    Infinite where the smallest is below n * (machine epsilon) of the largest: it cannot be told from zero. In float32
    that is above 33,000 for n = 256, so read a finite value as exact and an infinite one as "at least that".
    """
    spectrum = _spectrum(kernel)
    low, high = spectrum[-1], spectrum[0]
    singular = low <= high * len(spectrum) * jnp.finfo(spectrum.dtype).eps
    return jnp.where(singular, jnp.inf, high / jnp.where(singular, 1.0, low))


@standalone(
    name="kernel_top_share",
    unit="share of the trace",
    range=(0, 1),
    cost="eigenvalues of an n by n matrix",
    reference=LYLE_2024,
)
def kernel_top_share(kernel: Kernel) -> Scalar:
    """Largest eigenvalue of a Gram matrix over its trace."""
    spectrum = _spectrum(kernel)
    scaled = spectrum / magnitude(spectrum)
    return safe_ratio(scaled[0], jnp.sum(scaled))


@standalone(
    name="diagonal_plus_low_rank",
    unit="as the kernel; shares of its norm and trace",
    range=(0, float("inf")),
    cost="one decomposition of an n by n matrix an iteration",
    reference=LYLE_2024,
)
def diagonal_plus_low_rank(kernel: Float[Array, "n n"], rank: int = 1, iterations: int = 50) -> DiagonalPlusLowRank:
    """The split of a Gram matrix into D + U U^T, D diagonal and not negative, U with `rank` columns.

    Principal factors, by alternating minimisation of ||K - D - U U^T||_F from D = diag(K): U U^T is the best positive
    semi-definite approximation of K - D of that rank (its largest positive eigenvalues), then D the best diagonal,
    diag(K - U U^T) cut off at 0. No step increases the residual. U is found up to a rotation, and the split need not be
    unique once rank is of the order of n - sqrt(2 n). How many iterations matter depends on how evenly the
    columns of U spread over the inputs: a factor that rests on few of them converges slowly. The source shows the
    structure and states no algorithm.
    """
    k, scale = _scaled(kernel)
    n = k.shape[0]
    if not 1 <= rank <= n:
        raise UserError(f"rank must be between 1 and the number of inputs, {n}, got {rank}")
    if iterations < 1:
        raise UserError(f"iterations must be at least 1, got {iterations}")

    def low_rank(diagonal: Array) -> Array:
        values, vectors = jnp.linalg.eigh(k - jnp.diag(diagonal))
        return vectors[:, -rank:][:, ::-1] * jnp.sqrt(jnp.maximum(values[-rank:][::-1], 0))

    def improve(diagonal: Array, _: None) -> tuple[Array, None]:
        return jnp.maximum(jnp.diagonal(k) - jnp.sum(low_rank(diagonal) ** 2, axis=1), 0), None

    diagonal, _ = jax.lax.scan(improve, jnp.diagonal(k), None, length=iterations)
    factors = low_rank(diagonal)
    rest = k - jnp.diag(diagonal) - jnp.matmul(factors, factors.T, precision="highest")
    off = 1 - jnp.eye(n, dtype=k.dtype)
    nan = jnp.where(jnp.isnan(scale), jnp.nan, 1.0)
    return DiagonalPlusLowRank(
        diagonal * scale,
        factors * jnp.sqrt(scale),
        nan * safe_ratio(jnp.linalg.norm(rest), jnp.linalg.norm(k)),
        nan * safe_ratio(jnp.linalg.norm(rest * off), jnp.linalg.norm(k * off)),
        nan * safe_ratio(jnp.sum(diagonal), jnp.trace(k)),
    )


def square(kernel: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The symmetric part of a matrix, in at least float32. Raises `UserError` for anything that is not square."""
    k = jnp.asarray(kernel)
    if k.ndim != 2 or k.shape[0] != k.shape[1] or k.size == 0:
        raise UserError(f"a Gram matrix must be square and not empty, got {k.shape}")
    k = k.astype(jnp.promote_types(k.dtype, jnp.float32))
    return k / 2 + k.T / 2


def _scaled(kernel: Float[Array, "n n"]) -> tuple[Float[Array, "n n"], Scalar]:
    """The matrix over its magnitude, zeros where an entry is not finite, and the magnitude, which then is NaN."""
    k = square(kernel)
    finite = jnp.isfinite(k).all()
    k = jnp.where(finite, k, 0.0)
    return k / magnitude(k), jnp.where(finite, magnitude(k), jnp.nan)


def _spectrum(kernel: Kernel) -> Float[Array, " n"]:
    kernel = jnp.asarray(kernel)
    if kernel.ndim == 1 and kernel.size and jnp.issubdtype(kernel.dtype, jnp.floating):
        return kernel
    return kernel_eigenvalues(kernel)
