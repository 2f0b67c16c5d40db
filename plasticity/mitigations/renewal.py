"""What resets of whole layers share: a fresh draw of some layers, and the optimiser's state of exactly these.

Not a mitigation. A layer is the subtree of the parameters that holds its kernel: bias, noise deviations and whatever
parametrises the kernel restart with it. A normalisation of its own restarts too, with its running statistics.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from plasticity.mitigations.base import Learner, Setting
from plasticity.mitigations.recycling import reset_state
from plasticity.network import Network, Path, UnitLayer, get_at, set_at
from plasticity.networks.injection import own


def layer_at(kernel: Path) -> Path:
    """Where the layer of a kernel is; a parameter at the top level is a layer of its own."""
    return kernel[:-1] or kernel


def output_layers(network: Network) -> list[Path]:
    """The output layers: two where there are a value and an advantage stream."""
    return [layer_at(kernel) for kernel in (network.output_kernel, *network.other_outputs)]


def hidden_layers(network: Network, last: int) -> list[Path]:
    """Where the last hidden layers are, and their normalisations.

    Layers are counted in the order of the unit graph; those that an output reads count as one, so that two streams are
    renewed together. A kernel that reads such a layer and belongs to no layer of the graph (the outer kernel of a
    residual block) is renewed with it.
    """
    outputs = {network.output_kernel, *network.other_outputs}
    ends = [layer for layer in network.units if any(o.kernel in outputs for o in layer.outgoing)]
    before = [layer for layer in network.units if layer not in ends]
    steps = [[layer] for layer in before] + ([ends] if ends else [])
    chosen = [layer for step in steps[-last:] for layer in step]
    graph = {path for layer in network.units for path in _own_paths(layer)}
    readers = [o.kernel for layer in chosen for o in layer.outgoing if o.kernel not in graph]
    return [layer_at(path) for path in (*(p for layer in chosen for p in _own_paths(layer)), *readers)]


def _own_paths(layer: UnitLayer) -> list[Path]:
    paths = (layer.kernel, layer.bias, layer.norm_scale, layer.norm_bias, *layer.further)
    return [path for path in paths if path is not None]


def renew(learner: Learner, fresh: dict[str, Any], layers: Iterable[Path], setting: Setting) -> Learner:
    """The learner with the layers from `fresh` variables, in all collections of the network, and their state new."""
    layers = list(dict.fromkeys(layers))
    variables = dict(learner.variables)
    for name, tree in own(variables).items():
        for path in layers:
            if name == "params" or _has(tree, path):
                tree = set_at(tree, path, get_at(fresh[name], path))
        variables[name] = tree
    touched = jax.tree.map(lambda p: jnp.zeros(p.shape, bool), variables["params"])
    for path in layers:
        touched = set_at(touched, path, jax.tree.map(jnp.ones_like, get_at(touched, path)))
    assert setting.tx is not None, "a setting for events has the composed optimiser"
    return Learner(variables, reset_state(setting.tx, learner.opt_state, touched, variables["params"]))


def _has(tree: Any, path: Path) -> bool:
    try:
        get_at(tree, path)
    except KeyError:
        return False
    return True
