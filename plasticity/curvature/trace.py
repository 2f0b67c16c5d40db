"""Trace and diagonal of an operator from products with random signs (Hutchinson).

    trace       E[v^T A v]        diagonal      E[v * (A v)]         v entries +1 or -1 (Rademacher)

A sample of the trace has variance 2 sum_{i != j} A_ij^2: none for a diagonal operator, whose trace and diagonal are
exact in one sample. References: Hutchinson 1990 (doi:10.1080/03610919008812866); diagonal: Bekas et al. 2007
(doi:10.1016/j.apnum.2007.01.003). Names collide: the "Fisher trace" of some code bases is a mean of squared gradients.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from plasticity.curvature.operators import Operator, Vector
from plasticity.diagnostics.base import Scalar
from plasticity.diagnostics.standalone import standalone
from plasticity.errors import UserError


class Trace(NamedTuple):
    """value: mean over samples. standard_error: of that mean; infinite for one sample, which shows no spread.

    Both are NaN where a product is not finite.
    """

    value: Scalar
    standard_error: Scalar


@standalone(
    name="hutchinson_trace",
    unit="loss per squared parameter",
    range=(float("-inf"), float("inf")),
    cost="samples Hessian-vector products; memory for three vectors of the size of the parameters",
    reference="Hutchinson 1990, doi:10.1080/03610919008812866",
)
def hutchinson_trace(operator: Operator, key: Array, samples: int = 16) -> Trace:
    """Sum of the eigenvalues of an operator, with its standard error.

    operator: `curvature.hessian(...)` or `curvature.gauss_newton(...)`. samples: products, one after the other. Divided
    by `operator.size` it is the mean eigenvalue.
    """
    _check(samples)

    def sample(key: Array) -> Array:
        v = _signs(operator, key)
        return jnp.vdot(v, operator.apply(v), precision="highest")

    values = jax.lax.map(sample, jax.random.split(key, samples))
    mean = jnp.mean(values)
    spread = jnp.sqrt(jnp.sum((values - mean) ** 2) / (samples - 1) / samples) if samples > 1 else jnp.array(jnp.inf)
    finite = jnp.isfinite(mean)
    return Trace(jnp.where(finite, mean, jnp.nan), jnp.where(finite, spread, jnp.nan))


@standalone(
    name="hutchinson_diagonal",
    unit="loss per squared parameter",
    range=(float("-inf"), float("inf")),
    cost="samples Hessian-vector products; memory for three vectors of the size of the parameters",
    reference="Bekas et al. 2007, doi:10.1016/j.apnum.2007.01.003",
)
def hutchinson_diagonal(operator: Operator, key: Array, samples: int = 16) -> Any:
    """Estimate of an operator's diagonal, as a tree like the parameters.

    The variance of entry i is sum_{j != i} A_ij^2 / samples. Sums over layers are better determined than entries.
    """
    _check(samples)

    def add(total: Vector, key: Array) -> tuple[Vector, None]:
        v = _signs(operator, key)
        return total + v * operator.apply(v), None

    total, _ = jax.lax.scan(add, jnp.zeros(operator.size, operator.dtype), jax.random.split(key, samples))
    return operator.unravel(total / samples)


def _signs(operator: Operator, key: Array) -> Vector:
    return jax.random.rademacher(key, (operator.size,), operator.dtype)


def _check(samples: int) -> None:
    if samples < 1:
        raise UserError(f"samples must be at least 1, got {samples}")
