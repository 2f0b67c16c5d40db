"""Elementwise nonlinearities by name, with what diagnostics and the unit graph need to know of each.

`width` is the number of output features per unit: 1, or 2 for CReLU (Shang et al. 2016, arXiv:1603.05201;
as a plasticity mitigation Abbas et al. 2023, arXiv:2303.07507), which concatenates relu(z) and relu(-z).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Nonlinearity(NamedTuple):
    """`apply(z, slope)` maps `[..., units]` to `[..., units * width]`; only leaky_relu reads `slope`."""

    apply: Callable[[jax.Array, jax.Array | float], jax.Array]
    width: int = 1


NONLINEARITIES: dict[str, Nonlinearity] = {
    "relu": Nonlinearity(lambda z, slope: jax.nn.relu(z)),
    "leaky_relu": Nonlinearity(lambda z, slope: jnp.where(z > 0, z, slope * z)),
    "gelu": Nonlinearity(lambda z, slope: jax.nn.gelu(z)),
    "tanh": Nonlinearity(lambda z, slope: jnp.tanh(z)),
    "crelu": Nonlinearity(lambda z, slope: jnp.concatenate([jax.nn.relu(z), jax.nn.relu(-z)], axis=-1), width=2),
}
