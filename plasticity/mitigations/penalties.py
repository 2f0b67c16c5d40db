"""What penalties share: the squared norm over the parameters that are regularised. Not a mitigation."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from plasticity.network import Network, Params, norm_affine_mask


def half_squared_norm(params: Params, network: Network) -> jax.Array:
    """Half the sum of squares of all entries except the affine parameters of normalisation layers."""
    affine = norm_affine_mask(params, network)
    terms = [
        0.5 * jnp.sum(jnp.square(p))
        for p, a in zip(jax.tree.leaves(params), jax.tree.leaves(affine), strict=True)
        if not a
    ]
    return jnp.sum(jnp.stack(terms))
