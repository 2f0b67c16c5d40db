"""What resets of units share: the order of the overwriting, and the optimiser's state. Not a mitigation.

The order matters where a recycled unit feeds another recycled unit: their common weight is both incoming (fresh) and
outgoing (zero). Only "all fresh draws first, then all zeros" leaves the function unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import keystr

from plasticity.errors import UserError
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
        for path in (layer.kernel, layer.bias, layer.norm_scale, layer.norm_bias, *layer.further):
            if path is not None:
                write(path, masks[layer.name], get_at(fresh, path))
    for layer in layers:
        for outgoing in layer.outgoing:
            write(outgoing.kernel, outgoing.rows(masks[layer.name], params)[:, None], 0.0)
    return params, touched


class Kept(NamedTuple):
    """A part of an optimiser's state that a reset of entries leaves alone, whatever it looks like: norms by tensor,
    a history of two dimensions."""

    value: Any


def reset_state(tx: optax.GradientTransformation, state: Any, touched: Params, params: Params) -> Any:
    """The optimiser's state with the touched entries as `tx.init` has them for `params`, the new parameters.

    That is zero for moments, velocities and counts by entry, the stated start of an accumulator that does not start at
    zero, and the new value for what copies parameters (an average, a slow copy, an anchor): a copy must not pull a
    fresh weight back, and zero would be wrong for it. Whatever is laid out as the parameters are is reset, also where
    part of it is masked; all else stays, a count that all entries share too (use the suite's Adam with
    `per_entry=True`, or the first updates of the touched entries come out too large). Raises `UserError` as
    `initial_state` does.
    """
    check_by_entry(state, touched)
    return jax.tree.map(
        lambda old, fresh: _select(touched, fresh, old) if _covers(old, touched) else old,
        state,
        tx.init(params),
        is_leaf=lambda node: _ends(node, touched),
    )


def initial_state(tx: optax.GradientTransformation, params: Params) -> Any:
    """`tx.init(params)`, for wrappers that will call `reset_state`.

    Raises `UserError`, before anything is trained, where single entries of the state cannot be reset: second moments
    that are factored or shared by a tensor, Kronecker factors, a state that is flattened.
    """
    state = tx.init(params)
    check_by_entry(state, params)
    return state


def check_by_entry(state: Any, params: Params) -> None:
    """Raise `UserError` unless all of a state is laid out as the parameters are, or is small, or is `Kept`."""
    shapes = {path: leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    for path, node in jax.tree_util.tree_leaves_with_path(state, is_leaf=lambda node: _ends(node, params)):
        if isinstance(node, Kept):
            continue
        if _covers(node, params):
            for inner, leaf in jax.tree_util.tree_leaves_with_path(node):
                if shapes.get(inner) != leaf.shape:
                    owner = next(p for p in shapes if p == inner[: len(p)])
                    _refuse(path + inner, leaf, f" for the parameter {keystr(owner)} of shape {shapes[owner]}")
        elif jnp.issubdtype(jnp.result_type(node), jnp.floating) and (
            jnp.ndim(node) > 1 or jnp.shape(node) == (total,)
        ):
            _refuse(path, node, ", which is not laid out as the parameters are")


def _refuse(path: Any, leaf: Any, why: str) -> NoReturn:
    raise UserError(
        f"units cannot be reset under this optimiser: its state{keystr(path)} has shape {leaf.shape}{why}, so that "
        "single entries of it cannot restart; allowed are optimisers whose state has a value for each entry (adam, "
        "adamw, rmsprop, sgd, muon, and wrappers around these), and what a wrapper marks as `recycling.Kept`"
    )


def _masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)


def _covers(node: Any, params: Params) -> bool:
    """Whether a state's node has the parameters' tree at its top: masked where it does not apply, deeper at will."""
    if type(node) is not type(params) or _masked(node):
        return False
    wanted = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    found = jax.tree_util.tree_leaves_with_path(node, is_leaf=_masked)
    masked = {path for path, leaf in found if _masked(leaf)}
    present = {path for path, leaf in found if not _masked(leaf)}

    def has(path: Any) -> bool:
        return any(path[:i] in masked for i in range(len(path) + 1)) or any(p[: len(path)] == path for p in present)

    def known(path: Any) -> bool:
        return any(p == path[: len(p)] for p in wanted)

    return bool(present) and all(map(has, wanted)) and all(map(known, present))


def _ends(node: Any, params: Params) -> bool:
    return isinstance(node, Kept) or _covers(node, params)


def _select(touched: Params, fresh: Any, old: Any) -> Any:
    return jax.tree.map(
        lambda a, b, mask: a if _masked(a) else jnp.where(mask, b, a), old, fresh, touched, is_leaf=_masked
    )


def recycle(
    tx: optax.GradientTransformation,
    params: Params,
    state: Any,
    fresh: Params,
    masks: Mapping[str, jax.Array],
    layers: Sequence[UnitLayer],
) -> tuple[Params, Any]:
    """Parameters with the masked units recycled, and the optimiser's state reset where that touched an entry."""
    params, touched = overwrite(params, fresh, masks, layers)
    return params, reset_state(tx, state, touched, params)
