"""Arrays as diagnostics take them: at least float32, shaped as rows, scaled so that squares fit; moments of entries.

Input may be of any numeric dtype; bool, integers and half precision are computed in float32. What is not numbers is a
`UserError` that names the argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from plasticity.errors import UserError

Scalar = Float[Array, ""]


def as_array(values: Any, name: str) -> Array:
    """As a JAX array; a `UserError` for what is not numbers."""
    if any(isinstance(leaf, str | bytes) for leaf in jax.tree.leaves(values)):
        # NumPy would read text as the name of a dtype, with a warning of its own.
        raise UserError(f"{name} must be an array of numbers, got {type(values).__name__}: it holds text")
    try:
        return jnp.asarray(values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} must be an array of numbers, got {type(values).__name__}: {error}") from None


def as_rows(values: Any, name: str = "activations") -> Float[Array, "rows features"]:
    """Flatten `[batch, (positions ...,) features]` to rows, in at least float32.

    Every position of a feature map is a row, because a unit of a convolution is a channel.
    """
    x = as_array(values, name)
    if jnp.iscomplexobj(x):
        raise UserError(f"{name} must be real numbers, got {x.dtype}")
    if x.ndim < 2 or x.size == 0:
        raise UserError(f"{name} must be shaped [batch, (positions,) features] and not be empty, got {x.shape}")
    return x.reshape(-1, x.shape[-1]).astype(jnp.promote_types(x.dtype, jnp.float32))


def magnitude(x: Array) -> Scalar:
    """A divisor that makes squares of x neither overflow nor vanish: max |x|, kept within 1e-30 .. 1e30; NaN for NaN.

    The bounds matter: XLA divides by a scalar by multiplying with its reciprocal, which float32 flushes to zero
    for a divisor above 8e37.
    """
    return jnp.clip(jnp.max(jnp.abs(x)), 1e-30, 1e30)


def scaled_rows(phi: Float[Array, "*batch features"]) -> tuple[Float[Array, "rows features"], Scalar]:
    """Rows over their magnitude, and the magnitude, NaN if an entry is not finite."""
    x = as_rows(phi)
    finite = jnp.isfinite(x).all()
    # Zeros in place of NaN: decompositions may fail to converge on NaN, and slow a whole batch of runs down.
    x = jnp.where(finite, x, 0.0)
    return x / magnitude(x), jnp.where(finite, magnitude(x), jnp.nan)


def safe_ratio(a: Any, b: Any) -> Array:
    """a / b, with 0 / 0 = 0. A positive number over zero stays infinite; NaN stays NaN."""
    a, b = jnp.asarray(a), jnp.asarray(b)
    both = (a == 0) & (b == 0)
    return jnp.where(both, 0.0, a / jnp.where(both, 1.0, b))


def check_tree(tree: Any, name: str) -> None:
    """Raise `UserError` if a leaf of a tree is not real numbers. No leaf is converted that says what it holds."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        where = name + jax.tree_util.keystr(path)
        dtype = getattr(leaf, "dtype", None)
        if dtype is None:
            dtype = as_array(leaf, where).dtype
        if not _is_real(dtype):
            raise UserError(f"{where} must be an array of numbers, real ones, got {dtype}")


def check_scalar(value: Any, name: str) -> None:
    """Raise `UserError` if a value is not one real number; it may be traced."""
    x = as_array(value, name)
    if x.shape != () or not _is_real(x.dtype):
        raise UserError(f"{name} must be one real number, got {x.dtype} of shape {x.shape}")


def _is_real(dtype: Any) -> bool:
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


class Moments(NamedTuple):
    """Mean, standard deviation (divisor N), skewness, and excess kurtosis (0 for a Gaussian)."""

    mean: Scalar
    std: Scalar
    skewness: Scalar
    excess_kurtosis: Scalar


def moments(arrays: Sequence[Array]) -> Moments:
    """Moments of all entries of some arrays together: m_k = mean (x - mean)^k, skewness m_3 / m_2^1.5, m_4 / m_2^2 - 3.

    Population moments, without small-sample corrections. Entries that are equal up to rounding have std, skewness and
    excess kurtosis 0; without any entry all four are NaN. Cost: two passes.
    """
    arrays = [x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in arrays if x.size]
    if not arrays:
        return Moments(*[jnp.array(jnp.nan)] * 4)
    entries = sum(x.size for x in arrays)

    def mean(parts: Sequence[Array]) -> Scalar:
        # Mean of means, so that a sum over many entries does not lose digits in one long accumulation.
        return sum((jnp.mean(part) * (part.size / entries) for part in parts), start=jnp.zeros(()))

    scale = magnitude(jnp.stack([jnp.max(jnp.abs(x)) for x in arrays]))
    scaled = [x / scale for x in arrays]
    centre = mean(scaled)
    spread = [x - centre for x in scaled]
    widest = jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in spread]))
    # Entries are at most 1, so rounding of the mean shows as a deviation of a few eps. Comparing keeps NaN as it is.
    constant = widest <= 8 * jnp.finfo(centre.dtype).eps
    # Scaled once more: fourth powers of small deviations would vanish.
    spread = [x / jnp.where(constant, 1.0, jnp.maximum(widest, 1e-30)) for x in spread]
    second, third, fourth = (mean([x**power for x in spread]) for power in (2, 3, 4))
    safe = jnp.where(constant, 1.0, second)
    shape = (jnp.sqrt(second) * widest * scale, third / safe**1.5, fourth / safe**2 - 3)
    return Moments(scale * centre, *(jnp.where(constant, 0.0, value) for value in shape))
