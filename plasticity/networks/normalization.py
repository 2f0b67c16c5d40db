"""Normalisations that stand before a nonlinearity, by name.

layer   z <- gamma (z - mean) / sqrt(var + 1e-6) + beta, mean and variance over the units of an example
        (Ba et al. 2016, arXiv:1607.06450); in a feature map over its positions as well, with a scale and an offset
        a channel
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
from flax import linen as nn


@dataclass(frozen=True)
class Normalization:
    """kind: a name in the table above, or `none`."""

    kind: str = "none"

    @classmethod
    def of(cls, value: str | Normalization) -> Normalization:
        """From a name, with the default options."""
        return value if isinstance(value, Normalization) else cls(value)

    @property
    def offset(self) -> bool:
        """Whether there is a learned offset beside the scale."""
        return self.kind != "none"


def normalize(options: Normalization, name: str, z: jax.Array, train: bool) -> jax.Array:
    """`z[batch, (height, width,) units]` normalised by a submodule called `name`; to be called in a compact module."""
    if options.kind == "layer":
        axes = tuple(range(1, z.ndim))
        return nn.LayerNorm(name=name, reduction_axes=axes, dtype=z.dtype)(z)
    return z
