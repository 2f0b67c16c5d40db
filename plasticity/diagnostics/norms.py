"""Norms of parameters, of gradients and of updates; distance from the initial parameters.

    weight norm                  ||theta||_2                    gradient norm   ||g||_2
    weight magnitude             mean |theta|                   update norm     ||delta theta||_2
    distance from init           ||theta - theta_0||_2          update ratio    ||delta theta||_2 / ||theta||_2
    relative distance from init  ||theta - theta_0||_2 / ||theta_0||_2

All range from 0 to infinity. A layer is what hangs on one top-level key of the tree, with everything in it:
kernels, biases, the affine parameters of normalisation. A layer's norm is over all its entries, the network's
over all entries of all layers, so squared norms of layers add up to the network's.

References: norms: Lyle et al. 2024 (arXiv:2402.18762), section 3.2; weight magnitude: Dohare et al. 2024
(doi:10.1038/s41586-024-07711-7); distance from init: Kumar et al. 2023 (arXiv:2308.11958).

Names collide. A "weight norm" that is mean-normalised, or is a sum over tensors, is another number. A gradient
norm is of the gradient that is passed: before or after clipping is the caller's choice; likewise an update is
what the optimiser returned, before or after a reset. 0 / 0 is 0 in ratios; NaN stays NaN; a tree without
entries has norm 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from plasticity.diagnostics.arrays import Scalar, magnitude, safe_ratio
from plasticity.diagnostics.base import Observation, Reading, diagnostic
from plasticity.errors import UserError

Leaves = list[Array]


def by_layer(tree: Any) -> dict[str, Leaves]:
    """The leaves of a tree under each top-level key, field name or index, in at least float32.

    A bare array is a network without layers: an empty mapping.
    """
    layers: dict[str, Leaves] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if path:
            layers.setdefault(jax.tree_util.keystr(path[:1], simple=True), []).append(as_float(leaf))
    return layers


def norm(tree: Any) -> Scalar:
    """L2 norm over all entries of a tree. Cost: one pass over the entries for the largest, one for the squares."""
    leaves = [as_float(leaf) for leaf in jax.tree.leaves(tree)]
    leaves = [leaf for leaf in leaves if leaf.size]
    if not leaves:
        return jnp.zeros(())
    # Scaled first: in float32, squares of entries below 1e-19 or above 1e19 would vanish or overflow.
    scale = magnitude(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in leaves]))
    return scale * jnp.sqrt(sum(jnp.sum(jnp.abs(leaf / scale) ** 2) for leaf in leaves))


def mean_magnitude(tree: Any) -> Scalar:
    """Mean |entry| over all entries of a tree; NaN for a tree without entries."""
    leaves = [as_float(leaf) for leaf in jax.tree.leaves(tree)]
    entries = sum(leaf.size for leaf in leaves)
    total = sum((jnp.sum(jnp.abs(leaf)) for leaf in leaves), start=jnp.zeros(()))
    return total / entries if entries else jnp.array(jnp.nan)


def difference(a: Any, b: Any) -> Any:
    """a - b, entry by entry. Raises `UserError` if the trees or the shapes of their leaves differ."""
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (a, b)]
    if jax.tree.structure(a) != jax.tree.structure(b) or shapes[0] != shapes[1]:
        raise UserError("params and the tree they are compared with differ in structure or shapes")
    return jax.tree.map(lambda x, y: as_float(x) - as_float(y), a, b)


def as_float(leaf: Any) -> Array:
    """A leaf as an array of at least float32."""
    leaf = jnp.asarray(leaf)
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))


def read_layers(measure: Callable[..., Array], *trees: Any) -> Reading:
    """`measure` of whole trees, and of each layer of theirs."""
    layers = [by_layer(tree) for tree in trees]
    return Reading(measure(*trees), {name: measure(*(layer[name] for layer in layers)) for name in layers[0]})


@diagnostic(
    name="weight_norm",
    unit="L2 norm",
    range=(0, float("inf")),
    needs=("params",),
    cost="one pass over the parameters",
    reference="Lyle et al. 2024, arXiv:2402.18762",
)
def _weight_norm(seen: Observation) -> Reading:
    """L2 norm of the parameters, biases and normalisation included."""
    return read_layers(norm, seen.params)


@diagnostic(
    name="weight_magnitude",
    unit="mean absolute value",
    range=(0, float("inf")),
    needs=("params",),
    cost="one pass over the parameters",
    reference="Dohare et al. 2024, doi:10.1038/s41586-024-07711-7",
)
def _weight_magnitude(seen: Observation) -> Reading:
    """Mean |theta| over the parameters, biases and normalisation included."""
    return read_layers(mean_magnitude, seen.params)


@diagnostic(
    name="distance_from_init",
    unit="L2 norm",
    range=(0, float("inf")),
    needs=("params", "initial_params"),
    cost="one pass over the parameters",
    reference="Kumar et al. 2023, arXiv:2308.11958",
)
def _distance_from_init(seen: Observation) -> Reading:
    """L2 distance of the parameters from `initial_params`. A reset does not move the reference; the caller may."""
    return read_layers(norm, difference(seen.params, seen.initial_params))


@diagnostic(
    name="relative_distance_from_init",
    unit="ratio",
    range=(0, float("inf")),
    needs=("params", "initial_params"),
    cost="one pass over the parameters",
    reference="Kumar et al. 2023, arXiv:2308.11958",
)
def _relative_distance_from_init(seen: Observation) -> Reading:
    """L2 distance from `initial_params` over their norm; infinite for a layer that started at zero and left it."""
    moved = difference(seen.params, seen.initial_params)
    return read_layers(lambda a, b: safe_ratio(norm(a), norm(b)), moved, seen.initial_params)


@diagnostic(
    name="gradient_norm",
    unit="L2 norm",
    range=(0, float("inf")),
    needs=("grads",),
    cost="one pass over the gradient",
    reference="standard",
)
def _gradient_norm(seen: Observation) -> Reading:
    """L2 norm of the gradient as passed."""
    return read_layers(norm, seen.grads)


@diagnostic(
    name="update_norm",
    unit="L2 norm",
    range=(0, float("inf")),
    needs=("updates",),
    cost="one pass over the update",
    reference="standard",
)
def _update_norm(seen: Observation) -> Reading:
    """L2 norm of the parameter update as passed."""
    return read_layers(norm, seen.updates)


@diagnostic(
    name="update_ratio",
    unit="ratio",
    range=(0, float("inf")),
    needs=("updates", "params"),
    cost="one pass over the update and the parameters",
    reference="standard",
)
def _update_ratio(seen: Observation) -> Reading:
    """L2 norm of the update over that of the parameters it is applied to."""
    difference(seen.updates, seen.params)
    return read_layers(lambda a, b: safe_ratio(norm(a), norm(b)), seen.updates, seen.params)
