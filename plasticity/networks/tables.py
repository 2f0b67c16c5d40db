"""Tables whose rows are looked up: of tokens in sequence models, of places in an image.

A table is no kernel: it is drawn normal with a stated deviation whatever the network's initialiser (sparse draws too),
has no fan-in, and belongs to no layer of the unit graph.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from plasticity.errors import UserError
from plasticity.heads import Softmax
from plasticity.network import TABLE
from plasticity.networks.base import Architecture
from plasticity.networks.parts import Forward


class Table(nn.Module):
    """Parameter `table[entries, features]`, normal with standard deviation `std`. Called, it gives the whole table."""

    entries: int
    features: int
    std: float

    @nn.compact
    def __call__(self) -> jax.Array:
        return self.param(TABLE, nn.initializers.normal(self.std), (self.entries, self.features))


def vocabulary(name: str, architecture: Architecture) -> int:
    """How many tokens a sequence model called `name` knows: as many as it may predict. `UserError` without classes."""
    head = architecture.head
    if not isinstance(head, Softmax):
        raise UserError(
            f"{name} predicts the next token: it needs a classification task whose classes are the tokens, and a head "
            f"for classes, not {type(head).__name__}"
        )
    return head.outputs


def looked_up(forward: Forward, x: jax.Array, tokens: int, width: int) -> jax.Array:
    """Rows `[batch * positions, width]` of a table of tokens, for `x[batch, positions]`; sets the pass's positions.

    Raises `UserError` where x is no tokens. A number that is no token has a row of NaN, so that it is noticed.
    """
    if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.integer):
        raise UserError(
            f"a sequence model needs tokens, integers [batch, positions], got {x.dtype} of shape {list(x.shape)}"
        )
    forward.positions = x.shape[1]
    table = Table(tokens, width, 1.0, name="tokens")().astype(forward.style.dtype)
    # Unsigned: -1 would be the last token.
    return jnp.take(table, x.reshape(-1).astype(jnp.uint32), axis=0, mode="fill", fill_value=jnp.nan)
