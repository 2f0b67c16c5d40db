"""Multi-head attention on rows of positions, and rotary positions.

    softmax(q k^T / sqrt(d)) v   of each head, q, k, v linear in x, d features a head (Vaswani et al. 2017,
                                 arXiv:1706.03762); causal: a position attends to itself and to earlier ones

Rotary positions (Su et al. 2021, arXiv:2104.09864): before the product, features i and i + d/2 of q and k at position t
are turned by the angle t / 10000^(2 i / d), so that the product depends on the distance of two positions only. They
have no parameters and no largest number of positions. (The source turns neighbouring features; that is the same up to
the order of features.)

Queries, keys and values are kernels of their own, so that what acts on matrices acts on each.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.networks.parts import Forward

BASE = 10_000.0


def rotated(x: jax.Array) -> jax.Array:
    """`x[..., positions, features]`, an even number of features, turned by position."""
    positions, features = x.shape[-2:]
    angles = np.outer(np.arange(positions), BASE ** (-2 * np.arange(features // 2) / features))
    cos, sin = (jnp.asarray(f(angles), x.dtype) for f in (np.cos, np.sin))
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def attention(
    forward: Forward, block: str, x: jax.Array, heads: int, causal: bool = False, rotary: bool = False
) -> jax.Array:
    """Rows `x[batch * positions, width]` to rows of the same shape; `forward.positions` says how many an example has.

    Layers `{block}_query`, `{block}_key`, `{block}_value` and, behind the heads, `{block}_projection`, with biases.
    """
    positions, width = forward.positions, x.shape[-1]

    def by_head(name: str) -> jax.Array:
        """`[batch, heads, positions, features]`."""
        y = forward.linear(f"{block}_{name}", x, width)
        return y.reshape(-1, positions, heads, width // heads).swapaxes(1, 2)

    q, k, v = map(by_head, ("query", "key", "value"))
    if rotary:
        q, k = rotated(q), rotated(k)
    scores = (q @ k.swapaxes(-1, -2)).astype(jnp.float32) * (width // heads) ** -0.5
    if causal:
        scores = jnp.where(np.tri(positions, dtype=bool), scores, -jnp.inf)
    y = jax.nn.softmax(scores, axis=-1).astype(x.dtype) @ v
    return forward.linear(f"{block}_projection", y.swapaxes(1, 2).reshape(-1, width), width)
