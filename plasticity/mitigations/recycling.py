"""What resets of units share: the order of the overwriting, and the optimiser's state. Not a mitigation.

The order matters where a recycled unit feeds another recycled unit: their common weight is both incoming (fresh) and
outgoing (zero). Only "all fresh draws first, then all zeros" leaves the function unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from plasticity.network import Params, UnitLayer, get_at, set_at


def overwrite(
    params: Params, fresh: Params, masks: Mapping[str, jax.Array], layers: Sequence[UnitLayer]
) -> tuple[Params, Params]:
    """Parameters with the masked units recycled, and a boolean tree of the entries that were touched.

    masks: layer name -> bool `[units]`. Incoming kernel, bias and norm parameters of masked units are taken from
    `fresh`; afterwards their rows in every outgoing kernel become zero.
    """
    touched = jax.tree.map(lambda p: jnp.zeros(p.shape, bool), params)

    def write(path, mask, value):
        nonlocal params, touched
        old = get_at(params, path)
        mask = jnp.broadcast_to(mask, old.shape)
        params = set_at(params, path, jnp.where(mask, value, old))
        touched = set_at(touched, path, get_at(touched, path) | mask)

    for layer in layers:
        for path in (layer.kernel, layer.bias, layer.norm_scale, layer.norm_bias, *layer.noise):
            if path is not None:
                write(path, masks[layer.name], get_at(fresh, path))
    for layer in layers:
        for outgoing in layer.outgoing:
            write(outgoing.kernel, outgoing.rows(masks[layer.name], params)[:, None], 0.0)
    return params, touched


def reset_state(tx: optax.GradientTransformation, state: Any, touched: Params) -> Any:
    """The optimiser's state with the touched entries of everything shaped like the parameters set to zero.

    Moments, velocities and per-entry counts restart; a count that all entries share stays (use the suite's Adam with
    `per_entry=True`, or the first updates of the touched entries come out too large).
    """
    return optax.tree_map_params(
        tx.init, lambda leaf, mask: jnp.where(mask, jnp.zeros_like(leaf), leaf), state, touched
    )


def recycle(
    tx: optax.GradientTransformation,
    updates: Any,
    state: Any,
    params: Params,
    fresh: Params,
    masks: Mapping[str, jax.Array],
    layers: Sequence[UnitLayer],
) -> tuple[Any, Any]:
    """Turn a step's updates into ones that also recycle the masked units; and reset the state of what they touch.

    On touched entries the update leads exactly to the recycled value (to zero without rounding error).
    """
    stepped = optax.apply_updates(params, updates)
    target, touched = overwrite(stepped, fresh, masks, layers)
    updates = jax.tree.map(lambda u, t, p, m: jnp.where(m, t - p, u), updates, target, params, touched)
    return updates, reset_state(tx, state, touched)
