"""Names that change at a switch: of classes, of tokens."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def cycle(key: jax.Array, names: int, share: jax.Array | float) -> jax.Array:
    """A permutation int32 `[names]` that is a cycle over k of them, drawn at random and in random order.

    k = round(share * names), but at least 2 for a share above 0, as one name alone cannot change: exactly k names move.
    """
    count = jnp.round(share * names).astype(jnp.int32)
    count = jnp.where(share > 0, jnp.maximum(count, 2), 0)
    order = jax.random.permutation(key, jnp.arange(names, dtype=jnp.int32))
    place = jnp.arange(names)
    successor = order[(place + 1) % jnp.maximum(count, 1)]
    return jnp.zeros_like(order).at[order].set(jnp.where(place < count, successor, order))
