"""What penalties share: which parameters are weights and biases, matrices of weights, the last features.

Not a mitigation. The roles of parameters come from the unit graph: what is named as the graph's kernels or biases are
is a weight or a bias also where the graph does not hold it (the kernels of a residual stream). Affine parameters of
normalisations and deviations of noisy layers are neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity.errors import UserError
from plasticity.network import Activation, Network, Params, Path, get_at, norm_affine_mask


class Roles(NamedTuple):
    """Paths within the parameters. gains: scales of normalisations; offsets: their offsets."""

    weights: tuple[Path, ...]
    biases: tuple[Path, ...]
    gains: tuple[Path, ...]
    offsets: tuple[Path, ...]


def roles(params: Params, network: Network) -> Roles:
    """The role of each parameter that has one, in the order of the parameters."""
    layers = network.units
    norms = {path for layer in layers for path in (layer.norm_scale, layer.norm_bias)} | set(network.norms)
    # The suite's own name too: blocks have norms where the layers of the graph have none.
    gain_names = {layer.norm_scale[-1] for layer in layers if layer.norm_scale} | {"scale"}
    # An output layer's deviations are outgoing kernels too: they are named as those of the hidden layers before it.
    noise_names = {path[-1] for layer in layers for path in layer.further}
    outgoing = {o.kernel for layer in layers for o in layer.outgoing}
    kernels = {layer.kernel for layer in layers} | outgoing | {network.output_kernel, *network.other_outputs}
    kernel_names = {path[-1] for path in kernels if path} - noise_names
    bias_names = {layer.bias[-1] for layer in layers if layer.bias}

    found: dict[str, list[Path]] = {name: [] for name in Roles._fields}
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(params):
        path = tuple(str(getattr(key, "key", key)) for key in key_path)
        if path in norms:
            found["gains" if path[-1] in gain_names else "offsets"].append(path)
        elif path[-1] in kernel_names and leaf.ndim > 1:
            found["weights"].append(path)
        elif path[-1] in bias_names and leaf.ndim == 1:
            found["biases"].append(path)
    return Roles(**{name: tuple(paths) for name, paths in found.items()})


def matrix(kernel: jax.Array) -> jax.Array:
    """A kernel `[..., in, out]` as `[everything else, out]`: a convolution reads a patch of its input as a vector."""
    return kernel.reshape(-1, kernel.shape[-1])


def hidden_matrices(params: Params, network: Network) -> list[jax.Array]:
    """The matrices `[in, units]` of the layers in the unit graph."""
    return [matrix(get_at(params, layer.kernel)) for layer in network.units]


def last_features(network: Network, activations: Mapping[str, Activation], member: str) -> list[jax.Array]:
    """What the output layers read, `[batch, (positions,) units]`; of several streams one each.

    Of a sequence model, which has an output at each position, `[batch * positions, units]`.

    Raises `UserError` where the network says neither by its `features` nor by its unit graph what that is.
    """
    outputs = {network.output_kernel, *network.other_outputs}
    names = network.features or tuple(
        layer.name for layer in network.units if any(o.kernel in outputs for o in layer.outgoing)
    )
    if not names:
        raise UserError(f"{member} needs the last hidden features: give Network(features=...) or output_kernel=")
    if absent := [name for name in names if name not in activations]:
        raise UserError(
            f"{member} needs the activations of {', '.join(absent)}: pass Context(activations=...) with them; "
            f"got {', '.join(sorted(activations)) or '(none)'}"
        )
    found = [activations[name].post for name in names]
    return [post.reshape(-1, post.shape[-1]) for post in found] if network.sequence else found


def rows(features: list[jax.Array]) -> jax.Array:
    """Features side by side, `[batch, all units at all positions]`."""
    return jnp.concatenate([f.reshape(f.shape[0], -1) for f in features], axis=1)


def half_squared_norm(params: Params, network: Network) -> jax.Array:
    """Half the sum of squares of all entries except the affine parameters of normalisation layers."""
    affine = norm_affine_mask(params, network)
    terms = [
        0.5 * jnp.sum(jnp.square(p))
        for p, a in zip(jax.tree.leaves(params), jax.tree.leaves(affine), strict=True)
        if not a
    ]
    return jnp.sum(jnp.stack(terms))
