"""The `Network` record: two pure functions and an explicit unit graph.

`init(key, x) -> variables` and `apply(variables, x) -> (output, activations, new_state)` hide the library
that built the network. `activations` maps each hidden layer's name to its `pre`- and `post`-activations.
The unit graph says, for each hidden layer, which parameters feed its units and which consume them; nothing in
the suite infers "the next layer" from the order of a dict (jit sorts keys: Dense_10 comes before Dense_2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Path = tuple[str, ...]
Params = Any

#: The name of a parameter `[entries, features]` whose rows are looked up (of tokens, of positions). It has two
#: dimensions, but no product is made with it: it has no fan-in, and is no matrix to an optimiser of matrices.
TABLE = "table"


class Activation(NamedTuple):
    """One hidden layer's values on a batch, shaped `[batch, (positions,) units]`.

    For an activation that widens its input (CReLU), `post` has a multiple of `units` features.
    """

    pre: jax.Array
    post: jax.Array


@dataclass(frozen=True)
class Outgoing:
    """A kernel that reads a layer's units along its second-to-last axis (`[..., in, out]`).

    Each unit owns the same number of input features, laid out unit-fastest: with U units, unit u owns rows
    u, u + U, u + 2U, ... That is the layout of Flax's flattened HWC maps (conv to dense) and of CReLU's
    concatenation, and of the two together.
    """

    kernel: Path

    def rows(self, units: jax.Array, params: Params) -> jax.Array:
        """Spread a per-unit vector `[units]` over the kernel's input features `[units * k]`, k read off its shape."""
        return jnp.tile(units, get_at(params, self.kernel).shape[-2] // units.shape[0])


@dataclass(frozen=True)
class UnitLayer:
    """One hidden layer of the unit graph.

    Units lie along the last axis of `kernel` (`[..., in, units]`) and of `bias`. `norm_scale` and `norm_bias` are
    the affine parameters of the normalisation that stands between the kernel and the nonlinearity, if any. `further`
    are further incoming parameters laid out as kernel and bias: the deviations of a noisy layer, and the gains of a
    kernel with weight normalisation (`[units]`).
    """

    name: str
    units: int
    kernel: Path
    bias: Path | None
    norm_scale: Path | None
    norm_bias: Path | None
    outgoing: tuple[Outgoing, ...]
    further: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Network:
    """A network as the suite sees it.

    init: `(key, x[batch, ...]) -> variables`, a dict with the collection `params` and, where there are running
        statistics, further collections.
    apply: `(variables, x, noise=None, train=False) -> (output[batch, outputs], {layer: Activation}, new_state)`; of a
        sequence model `output[batch, positions, outputs]`.
        noise: a key for noisy layers and random nonlinearities, which without one apply their means. train: use the
        batch's own statistics where a layer has running ones; `new_state` then holds the collections that change with
        the batch, else it is empty.
    units: the unit graph, input side first.
    activation: name of the nonlinearity, for diagnostics that depend on it.
    output_kernel: path of the output layer's kernel within `params`; of the advantages, if there are two streams.
    other_outputs: kernels of further output layers: that of the value stream.
    norms: affine parameters of normalisations that belong to no layer of the unit graph (of a residual stream).
    coefficients: of trained nonlinearities, shared by the units of a layer.
    features: names of the activations that the output layers read; side by side they are the last hidden features.
    logits: how many outputs in a row are the logits of one distribution; 0 where outputs are plain numbers.
    auxiliary: kernels of linear heads on the features that the forward pass does not use, in the features' order.
    stochastic: training passes need a key, beside what noisy layers need for acting.
    sequence: a sequence model: inputs are tokens, integers `[batch, positions]`, and each position has a prediction,
        which depends on no later one (in training with batch norm, through the batch's statistics).
    """

    init: Callable[[jax.Array, jax.Array], dict[str, Any]]
    apply: Callable[..., tuple[jax.Array, Mapping[str, Activation], dict[str, Any]]]
    units: tuple[UnitLayer, ...]
    activation: str = "relu"
    output_kernel: Path = ()
    other_outputs: tuple[Path, ...] = ()
    norms: tuple[Path, ...] = ()
    coefficients: tuple[Path, ...] = ()
    features: tuple[str, ...] = ()
    logits: int = 0
    auxiliary: tuple[Path, ...] = ()
    stochastic: bool = False
    sequence: bool = False


def get_at(tree: Any, path: Path) -> Any:
    """The leaf or subtree of nested dicts at `path`. Raises `KeyError` naming the path."""
    for i, key in enumerate(path):
        try:
            tree = tree[key]
        except (KeyError, TypeError, IndexError):
            raise KeyError(f"no entry {'/'.join(path[: i + 1])}") from None
    return tree


def set_at(tree: Any, path: Path, value: Any) -> Any:
    """A copy of nested dicts with the leaf at `path` replaced."""
    if not path:
        return value
    return {**tree, path[0]: set_at(tree[path[0]], path[1:], value)}


def norm_affine_mask(params: Params, network: Network) -> Params:
    """True on what penalties leave alone, False elsewhere; same structure as `params`.

    The affine parameters of normalisation layers, and the coefficients of nonlinearities.
    """
    mask = jax.tree.map(lambda _: False, params)
    paths = [path for layer in network.units for path in (layer.norm_scale, layer.norm_bias) if path is not None]
    for path in (*paths, *network.norms, *network.coefficients):
        mask = set_at(mask, path, True)
    return mask
