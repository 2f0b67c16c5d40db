"""The trainable nonlinearity `rational` as a module: it holds the coefficients of one layer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from plasticity.activations import DENOMINATOR, NUMERATOR, rational


class Rational(nn.Module):
    """`z[..., units]` to the same shape. Parameters: `numerator[6]`, `denominator[4]`."""

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        numerator = self.param("numerator", lambda key: jnp.array(NUMERATOR))
        denominator = self.param("denominator", lambda key: jnp.array(DENOMINATOR))
        return rational(z, numerator, denominator)
