"""Nonlinearities by name, with what diagnostics and the unit graph need to know of each.

`width` is the number of output features per unit: 1, or 2 for CReLU (Shang et al. 2016, arXiv:1603.05201;
as a plasticity mitigation Abbas et al. 2023, arXiv:2303.07507), which concatenates relu(z) and relu(-z), and for deep
Fourier features (Lewandowski et al. 2024, arXiv:2410.20634), which concatenate sin z and cos z.

All are elementwise. Two are more than a function of z: `aid` is random in training (Park et al. 2025,
arXiv:2502.01342), and `rational` has coefficients that are trained, shared by the units of a layer (Molina et al. 2020,
arXiv:1907.06732):

    f(z) = (a_0 + a_1 z + ... + a_5 z^5) / (1 + |b_1 z + ... + b_4 z^4|)

The denominator is at least 1, so there are no poles. z^5 overflows float32 at |z| about 5e7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

#: Where `rational` starts: near a leaky ReLU of slope .01, off by at most .0131 on [-3, 3]; further out it bends
#: towards .505 z on both sides. This suite's fit, by least squares of a high power of the error.
NUMERATOR = (0.01304285, 0.5049994, 2.707126, 4.440816, 2.464225, 0.4488974)
DENOMINATOR = (0.0, 8.79373, 0.0, 0.8889109)


class Nonlinearity(NamedTuple):
    """`apply(z, slope)` maps `[..., units]` to `[..., units * width]`, in evaluation, with coefficients at their start.

    slope: of leaky_relu on the negative side; of aid the probability of the negative branch. Others ignore it.
    sample: `(key, z, slope)`, what stands in its place in training, None where it is the same. learned: how the names
    of the layers that hold its coefficients begin, empty if it has none. signed: outputs (the first half of them) have
    the sign of z, or are 0.
    """

    apply: Callable[[jax.Array, jax.Array | float], jax.Array]
    width: int = 1
    sample: Callable[[jax.Array, jax.Array, Any], jax.Array] | None = None
    learned: str = ""
    signed: bool = True


def rational(z: jax.Array, numerator: Any = NUMERATOR, denominator: Any = DENOMINATOR) -> jax.Array:
    """f(z) of any shape, from `numerator[6]` (constant first) and `denominator[4]` (linear first); float32 inside."""
    x = jnp.asarray(z, jnp.float32)
    top = jnp.polyval(jnp.asarray(numerator)[::-1], x)
    bottom = jnp.polyval(jnp.asarray(denominator)[::-1], x) * x
    return (top / (1.0 + jnp.abs(bottom))).astype(jnp.result_type(z))


def _aid(key: jax.Array, z: jax.Array, drop: Any) -> jax.Array:
    """One draw for each element: relu(z), or with probability `drop` -relu(-z)."""
    negative = jax.random.uniform(key, z.shape) < drop
    return jnp.where(negative, jnp.minimum(z, 0), jax.nn.relu(z))


NONLINEARITIES: dict[str, Nonlinearity] = {
    "relu": Nonlinearity(lambda z, slope: jax.nn.relu(z)),
    "leaky_relu": Nonlinearity(lambda z, slope: jnp.where(z > 0, z, slope * z)),
    "gelu": Nonlinearity(lambda z, slope: jax.nn.gelu(z)),
    "swish": Nonlinearity(lambda z, slope: jax.nn.silu(z)),
    "elu": Nonlinearity(lambda z, slope: jax.nn.elu(z)),
    "tanh": Nonlinearity(lambda z, slope: jnp.tanh(z)),
    "crelu": Nonlinearity(lambda z, slope: jnp.concatenate([jax.nn.relu(z), jax.nn.relu(-z)], axis=-1), width=2),
    "fourier": Nonlinearity(lambda z, slope: jnp.concatenate([jnp.sin(z), jnp.cos(z)], axis=-1), width=2, signed=False),
    "aid": Nonlinearity(lambda z, slope: jnp.where(z > 0, (1 - slope) * z, slope * z), sample=_aid),
    "rational": Nonlinearity(lambda z, slope: rational(z), learned="rational", signed=False),
}
