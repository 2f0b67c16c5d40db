"""Which parameters belong to which layer, for members that act on weights layer by layer. Not a mitigation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from plasticity.network import TABLE, Network, Params, Path, UnitLayer, get_at, set_at


def fan_ins(params: Params, network: Network) -> Params:
    """The fan-in of each parameter's own layer, a tree of ints: a kernel's own, and a bias's that of its kernel.

    0 for what has none: affine parameters of normalisations, coefficients of nonlinearities, tables. A layer of the
    unit graph names its kernel and bias; of a layer outside it (the output) the bias is the `bias` beside the `kernel`.
    """

    def own(path: Any, p: jax.Array) -> int:
        return math.prod(p.shape[:-1]) if p.ndim > 1 and path[-1].key != TABLE else 0

    found = jax.tree_util.tree_map_with_path(own, params)
    beside = {layer.bias: layer.kernel for layer in network.units if layer.bias is not None}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
        path = tuple(key.key for key in keys)
        if path not in beside and path[-1] in ("bias", "noise_bias") and leaf.ndim == 1:
            beside[path] = (*path[:-1], "kernel")
    for bias, kernel in beside.items():
        try:
            found = set_at(found, bias, get_at(found, kernel))
        except KeyError:
            continue  # the bias of a normalisation
    return found


def under(params: Params, places: Sequence[Path]) -> Params:
    """True on parameters at or below one of the places, False elsewhere."""
    mask = jax.tree.map(lambda _: False, params)
    for place in filter(None, places):  # a network may not name its output
        mask = set_at(mask, place, jax.tree.map(lambda _: True, get_at(params, place)))
    return mask


def weights(layer: UnitLayer, params: Params) -> list[Path]:
    """A layer's kernel, and the kernel of its noise if it is a noisy one: what scales together."""
    return [path for path in (layer.kernel, *layer.further) if get_at(params, path).ndim > 1]


def joint_norm(params: Params, paths: Sequence[Path]) -> jax.Array:
    """The Euclidean norm of some parameters taken together."""
    return jnp.sqrt(sum((jnp.sum(jnp.square(get_at(params, path))) for path in paths), jnp.zeros(())))


def rescaled(params: Params, paths: Sequence[Path], norm: jax.Array | float) -> Params:
    """Some parameters scaled so that their joint norm is `norm`; as they are where either norm is zero."""
    now = joint_norm(params, paths)
    usable = (now > 0) & (norm > 0)
    factor = jnp.where(usable, norm / jnp.where(usable, now, 1.0), 1.0)
    for path in paths:
        params = set_at(params, path, get_at(params, path) * factor)
    return params


def to_norms(params: Params, groups: Sequence[Sequence[Path]], norms: Sequence[jax.Array]) -> Params:
    """Each group of parameters scaled to its norm."""
    for paths, norm in zip(groups, norms, strict=True):
        params = rescaled(params, paths, norm)
    return params
