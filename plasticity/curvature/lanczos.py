"""Lanczos with full reorthogonalisation in one scan, and the spectral density of an operator by quadrature.

From a random unit vector q_1, m steps of Lanczos give an orthonormal basis Q of the Krylov space and the tridiagonal
T = Q^T A Q, with alpha on its diagonal and beta beside it. Its eigenvalues, the Ritz values, approximate the outermost
eigenvalues of A first. With tau_i the squared first entry of T's i-th eigenvector, sum_i tau_i f(theta_i)
approximates q_1^T f(A) q_1, and averaged over random q_1 the mean of f over all eigenvalues (stochastic Lanczos
quadrature), exactly for polynomials of degree 2 m - 1; f a Gaussian around t gives the density at t.

Each new vector is orthogonalised twice against all earlier ones: without it float32 produces copies of the eigenvalues
that have converged. Where beta vanishes, because A has low rank or the vector had no part in the rest of the spectrum,
a fresh random direction orthogonal to the basis carries on (with beta = 0): with as many steps as A has rows, the
Ritz values are all eigenvalues with their multiplicities. Before that an eigenvalue is found once, however often it is
repeated.

Memory: order * size entries for the basis, one basis at a time. Time: `order` products, and 8 order^2 size operations.

References: Golub & Welsch 1969 (doi:10.1090/S0025-5718-69-99647-1); Ghorbani et al. 2019 (arXiv:1901.10159), who use 90
steps. Names collide: elsewhere a "Hessian spectrum" is the histogram of the Ritz values without their weights.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from plasticity.curvature.operators import Operator, Vector
from plasticity.diagnostics.base import magnitude
from plasticity.diagnostics.standalone import standalone
from plasticity.errors import UserError


class Tridiagonal(NamedTuple):
    """alpha: diagonal. beta: beside it, and last the norm of what the next vector would have been."""

    alpha: Float[Array, " m"]
    beta: Float[Array, " m"]
    basis: Float[Array, "m p"]


class Spectrum(NamedTuple):
    """A measure on the real line, of total weight 1: the eigenvalues of an operator, or an estimate of them.

    values: points, those of a probe in ascending order. weights: of each point, summing to 1. size: number of
    eigenvalues that the measure stands for.
    """

    values: Float[Array, "probes m"]
    weights: Float[Array, "probes m"]
    size: int


class Density(NamedTuple):
    """density: of eigenvalues at the points of `grid`, integrating to 1. width: deviation of the Gaussians."""

    grid: Float[Array, " points"]
    density: Float[Array, " points"]
    width: Float[Array, ""]


def lanczos(operator: Operator, key: Array, order: int) -> Tridiagonal:
    """`min(order, size)` steps from a random Gaussian direction. NaN or infinity in a product makes all values NaN."""
    order = check_order(order, operator)
    tiny = jnp.finfo(operator.dtype).eps

    def draw(i: Array) -> Vector:
        v = jax.random.normal(jax.random.fold_in(key, i), (operator.size,), operator.dtype)
        return v / _norm(v)

    def orthogonal(basis: Array, w: Vector) -> tuple[Vector, Array]:
        part = jnp.matmul(basis, w, precision="highest")
        return w - jnp.matmul(part, basis, precision="highest"), part

    def fresh(basis: Array, _: Vector, i: Array) -> Vector:
        return orthogonal(basis, orthogonal(basis, draw(i))[0])[0]

    def step(carry: tuple[Array, Vector, Array], i: Array):
        basis, q, scale = carry
        basis = basis.at[i].set(q)
        w, part = orthogonal(basis, operator.apply(q))
        w, again = orthogonal(basis, w)
        alpha, norm = part[i] + again[i], _norm(w)
        scale = jnp.maximum(scale, jnp.abs(alpha))
        # What is left is rounding: the space is exhausted. Comparisons with NaN are false, so NaN is carried on.
        # Judged after the second pass: what the first leaves of pure rounding is largely along the basis.
        exhausted = norm <= 10 * tiny * scale
        beta = jnp.where(exhausted, 0.0, norm)
        w = jax.lax.cond(exhausted, fresh, lambda basis, w, i: w, basis, w, i + 1)
        norm = jnp.where(exhausted, _norm(w), norm)
        q = w / jnp.where(norm == 0, 1.0, norm)
        return (basis, q, jnp.maximum(scale, beta)), (alpha, beta)

    start = jnp.zeros((order, operator.size), operator.dtype), draw(jnp.array(0)), jnp.zeros((), operator.dtype)
    (basis, _, _), (alpha, beta) = jax.lax.scan(step, start, jnp.arange(order))
    finite = jnp.isfinite(alpha).all() & jnp.isfinite(beta).all()
    return Tridiagonal(jnp.where(finite, alpha, jnp.nan), jnp.where(finite, beta, jnp.nan), basis)


def _norm(v: Vector) -> Array:
    """L2 norm whose squares neither overflow nor vanish: curvature of a saturated network is easily below 1e-20."""
    return magnitude(v) * jnp.linalg.norm(v / magnitude(v))


def ritz(steps: Tridiagonal) -> tuple[Float[Array, " m"], Float[Array, "m m"]]:
    """Ritz values, ascending, and the eigenvectors of T in columns; NaN where T is not finite."""
    alpha, beta = steps.alpha, steps.beta[:-1]
    finite = jnp.isfinite(alpha).all()
    # Decompositions may fail to converge on NaN, and overflow on huge values.
    scale = jnp.where(finite, magnitude(steps.alpha), 1.0)
    scale = jnp.maximum(scale, jnp.where(finite, magnitude(steps.beta), 1.0))
    alpha, beta = (jnp.where(finite, values, 0.0) / scale for values in (alpha, beta))
    values, vectors = jnp.linalg.eigh(jnp.diag(alpha) + jnp.diag(beta, 1) + jnp.diag(beta, -1))
    return jnp.where(finite, values * scale, jnp.nan), jnp.where(finite, vectors, jnp.nan)


@standalone(
    name="curvature_spectrum",
    unit="eigenvalues with weights",
    range=(float("-inf"), float("inf")),
    cost="probes * order Hessian-vector products; memory for order vectors of the size of the parameters",
    reference="Ghorbani et al. 2019, arXiv:1901.10159",
)
def spectrum(operator: Operator, key: Array, order: int = 90, probes: int = 1) -> Spectrum:
    """Eigenvalues of an operator with weights, by stochastic Lanczos quadrature.

    operator: `curvature.hessian(...)` or `curvature.gauss_newton(...)`. order: steps, at most the operator's size; with
    as many steps as that the values are all eigenvalues, the weights are equal, and one probe is taken. probes: random
    vectors, one after the other; the error of a mean over the spectrum falls with the root of probes * size.
    """
    order = check_order(order, operator)
    if probes < 1:
        raise UserError(f"probes must be at least 1, got {probes}")
    exact = order == operator.size

    def probe(key: Array) -> tuple[Array, Array]:
        values, vectors = ritz(lanczos(operator, key, order))
        return values, jnp.full_like(values, 1 / order) if exact else vectors[0] ** 2

    values, weights = jax.lax.map(probe, jax.random.split(key, 1 if exact else probes))
    return Spectrum(values, weights / jnp.sum(weights), operator.size)


@standalone(
    name="spectral_density",
    unit="share of eigenvalues per unit of eigenvalue",
    range=(0, float("inf")),
    cost="none beyond the spectrum: probes * order * points exponentials",
    reference="Ghorbani et al. 2019, arXiv:1901.10159",
)
def spectral_density(spectrum: Spectrum, broadening: float = 0.01, points: int = 1024) -> Density:
    """Density of eigenvalues on a grid: the weighted points of a `spectrum`, each widened to a Gaussian.

    broadening: deviation of the Gaussians over the range of the spectrum (the source's variance is 1e-5 of the range);
    of the largest |value| where all values are equal, and itself where all are 0. The grid reaches five deviations
    beyond the outermost values, so that the trapezoidal rule integrates to 1 as long as broadening * points > 2. NaN
    in the spectrum gives NaN everywhere.
    """
    if not points >= 2:
        raise UserError(f"points must be at least 2, got {points}")
    low, high = jnp.min(spectrum.values), jnp.max(spectrum.values)
    largest = jnp.maximum(jnp.abs(low), jnp.abs(high))
    # A range of rounding errors is no range.
    scale = jnp.where(high - low > 1e-5 * largest, high - low, jnp.where(largest > 0, largest, 1.0))
    width = broadening * jnp.where(jnp.isnan(largest), jnp.nan, scale)
    grid = jnp.linspace(low - 5 * width, high + 5 * width, points)
    # One point of the spectrum at a time: points * probes * order values would not fit for large spectra.
    each = spectrum.values.reshape(-1), spectrum.weights.reshape(-1)

    def add(density: Array, point: tuple[Array, Array]) -> tuple[Array, None]:
        value, weight = point
        return density + weight * jnp.exp(-0.5 * ((grid - value) / width) ** 2), None

    density, _ = jax.lax.scan(add, jnp.zeros_like(grid), each)
    return Density(grid, density / (width * (2 * jnp.pi) ** 0.5), width)


def moment(spectrum: Spectrum, power: int) -> Float[Array, ""]:
    """Mean over eigenvalues of their power: trace(A^power) / size."""
    return jnp.sum(spectrum.weights * spectrum.values**power)


def check_order(order: int, operator: Operator) -> int:
    """Lanczos steps that can be taken. Raises `UserError` for fewer than 1."""
    if order < 1:
        raise UserError(f"order is the number of Lanczos steps, at least 1, got {order}")
    return min(order, operator.size)
