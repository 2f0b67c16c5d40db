"""The largest eigenvalues of an operator, and how many directions are curved: ranks of its spectrum.

    largest eigenvalues        outermost Ritz values, by a stated sign                        -inf .. inf
    curvature rank             number of eigenvalues with |lambda| > epsilon                  0 .. size
    curvature srank            min k with sum_{i<=k} |lambda_i| / sum_i |lambda_i| >= 1 - delta     0 .. size
    curvature effective rank   exp(-sum_i p_i log p_i), p_i = |lambda_i| / sum |lambda|       0, or 1 .. size
    negative curvature share   number of eigenvalues < -epsilon, over size                    0 .. 1

Ranks are of a `spectrum`: with as many Lanczos steps as parameters they are exact, with fewer they are estimates, and
need not be whole numbers. Directions without any curvature count for nothing in all of them. A zero operator has rank
0; NaN in the spectrum gives NaN.

References: Lewandowski et al. 2023 (arXiv:2312.00246) for the rank of the Hessian at the start of a task; number of
|lambda| > epsilon: He et al. 2025 (arXiv:2509.22335). Names collide: "lambda max" from power iteration is the largest
|lambda|, and may be a negative eigenvalue or a mixture of two; "sharpness" is the largest algebraic one here; "Hessian
rank" stands for any of the three ranks.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from plasticity.curvature.lanczos import Spectrum, check_order, lanczos, ritz
from plasticity.curvature.operators import Operator
from plasticity.diagnostics.base import Scalar, magnitude
from plasticity.diagnostics.standalone import standalone
from plasticity.errors import UserError, unknown

Sign = Literal["largest algebraic", "most negative", "largest magnitude"]
SIGNS = ("largest algebraic", "most negative", "largest magnitude")


class Eigenvalues(NamedTuple):
    """values: in the order asked for. residuals: an eigenvalue lies within so much of the value, up to rounding."""

    values: Float[Array, " count"]
    residuals: Float[Array, " count"]


@standalone(
    name="largest_eigenvalues",
    unit="loss per squared parameter",
    range=(float("-inf"), float("inf")),
    cost="order Hessian-vector products; memory for order vectors of the size of the parameters",
    reference="Lanczos 1950, doi:10.6028/jres.045.026",
)
def largest_eigenvalues(
    operator: Operator, key: Array, count: int = 1, sign: Sign = "largest algebraic", order: int | None = None
) -> Eigenvalues:
    """The outermost eigenvalues of an operator, with a bound on the error of each.

    operator: `curvature.hessian(...)` or `curvature.gauss_newton(...)`. order: Lanczos steps, by default
    30 + 2 * count, at most the operator's size.

    sign, and the order of the values:
    - `largest algebraic`: descending; the first is the sharpness.
    - `most negative`: ascending; positive where the operator is positive definite.
    - `largest magnitude`: by |lambda|, descending, with their signs.

    A repeated eigenvalue is returned once, unless order reaches the size. Raises `UserError` for another sign, and for
    more values than steps.
    """
    if sign not in SIGNS:
        raise unknown("sign", sign, SIGNS)
    steps = check_order(30 + 2 * count if order is None else order, operator)
    if not 1 <= count <= steps:
        raise UserError(f"count must be between 1 and the number of Lanczos steps, {steps}, got {count}")
    run = lanczos(operator, key, steps)
    values, vectors = ritz(run)
    # With a full basis there is no next vector: what is left of it is rounding.
    left = 0.0 if steps == operator.size else 1.0
    residuals = left * run.beta[-1] * jnp.abs(vectors[-1])
    by = {"largest algebraic": -values, "most negative": values, "largest magnitude": -jnp.abs(values)}[sign]
    first = jnp.argsort(by)[:count]
    return Eigenvalues(values[first], residuals[first])


@standalone(
    name="curvature_rank",
    unit="directions",
    range=(0, float("inf")),
    cost="none beyond the spectrum",
    reference="He et al. 2025, arXiv:2509.22335",
)
def curvature_rank(spectrum: Spectrum, epsilon: float = 1e-3) -> Scalar:
    """Number of eigenvalues with |lambda| > epsilon, an absolute threshold: it falls with the scale of the loss.

    The sources state no common value of epsilon. Below about 1e-6 of the largest |lambda| float32 cannot tell an
    eigenvalue from zero.
    """
    return spectrum.size * _where(spectrum, jnp.abs(spectrum.values) > epsilon)


@standalone(
    name="curvature_srank",
    unit="directions",
    range=(0, float("inf")),
    cost="one sort of the spectrum",
    reference="Lewandowski et al. 2023, arXiv:2312.00246; srank: Kumar et al. 2021, arXiv:2010.14498",
)
def curvature_srank(spectrum: Spectrum, delta: float = 0.01) -> Scalar:
    """Smallest number of eigenvalues, by |lambda|, that hold the share 1 - delta of sum |lambda|."""
    sizes, weights, total = _relative(spectrum)
    order = jnp.argsort(-sizes)
    counts = spectrum.size * weights[order]
    held, number = jnp.cumsum(counts * sizes[order]), jnp.cumsum(counts)
    wanted = (1 - delta) * spectrum.size * total
    i = jnp.minimum(jnp.sum(held < wanted), sizes.size - 1)
    # A point of the estimate may stand for many eigenvalues: those of them that are needed.
    short = wanted - (held[i] - counts[i] * sizes[order][i])
    need = number[i] - counts[i] + short / jnp.where(sizes[order][i] > 0, sizes[order][i], 1.0)
    rank = jnp.where(total > 0, jnp.ceil(need - 1e-4), 0.0)
    return jnp.where(jnp.isfinite(spectrum.values).all(), jnp.minimum(rank, spectrum.size), jnp.nan)


@standalone(
    name="curvature_effective_rank",
    unit="directions",
    range=(0, float("inf")),
    cost="none beyond the spectrum",
    reference="Lewandowski et al. 2023, arXiv:2312.00246; effective rank: Roy & Vetterli 2007, EUSIPCO",
)
def curvature_effective_rank(spectrum: Spectrum) -> Scalar:
    """exp of the entropy (in nats) of |lambda| / sum |lambda|; 0 log 0 = 0, and 0 for a zero operator."""
    sizes, weights, total = _relative(spectrum)
    p = sizes / jnp.where(total > 0, spectrum.size * total, 1.0)
    entropy = -spectrum.size * jnp.sum(weights * p * jnp.log(jnp.where(p > 0, p, 1.0)))
    rank = jnp.where(total > 0, jnp.exp(entropy), 0.0)
    return jnp.where(jnp.isfinite(spectrum.values).all(), rank, jnp.nan)


@standalone(
    name="negative_curvature_share",
    unit="share of directions",
    range=(0, 1),
    cost="none beyond the spectrum",
    reference="Dauphin et al. 2014, arXiv:1406.2572",
)
def negative_curvature_share(spectrum: Spectrum, epsilon: float = 1e-3) -> Scalar:
    """Share of eigenvalues below -epsilon (the index of a critical point over its dimension).

    Elsewhere the threshold is 0, which in float32 counts the rounding errors of eigenvalues that are zero.
    """
    return _where(spectrum, spectrum.values < -epsilon)


def _where(spectrum: Spectrum, condition: Array) -> Scalar:
    """Weight of the points that fulfil a condition."""
    return jnp.where(jnp.isfinite(spectrum.values).all(), jnp.sum(jnp.where(condition, spectrum.weights, 0.0)), jnp.nan)


def _relative(spectrum: Spectrum) -> tuple[Float[Array, " k"], Float[Array, " k"], Scalar]:
    """|values| over the largest, their weights, and the weighted mean of the former."""
    sizes, weights = jnp.abs(spectrum.values).reshape(-1), spectrum.weights.reshape(-1)
    sizes = sizes / magnitude(sizes)
    return sizes, weights, jnp.sum(weights * sizes)
