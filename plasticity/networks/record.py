"""From a Flax module and its unit graph to the `Network` record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import jax
from flax import linen as nn

from plasticity.activations import NONLINEARITIES
from plasticity.heads import Regression
from plasticity.network import Activation, Network
from plasticity.networks.base import Architecture
from plasticity.networks.injection import injectable
from plasticity.networks.parts import Graph
from plasticity.networks.target_units import in_target_units

#: What modules keep beside parameters: it changes with the batches of training, not by gradients.
COLLECTIONS = ("batch_stats", "spectral_stats")
Outcome = tuple[jax.Array, Mapping[str, Activation]]


def record(module: nn.Module, graph: Graph, architecture: Architecture) -> Network:
    """The `Network` of a module that maps `(x, slope, noise, train)` to outputs and activations."""
    slope = architecture.slope

    def init(key: jax.Array, x: jax.Array) -> dict[str, Any]:
        return dict(module.init(key, x, slope))

    def apply(variables: Mapping[str, Any], x: jax.Array, noise: jax.Array | None = None, train: bool = False):
        own = {name: variables[name] for name in ("params", *COLLECTIONS) if name in variables}
        changing = [name for name in own if name != "params"] if train else []
        if not changing:
            outputs, activations = cast("Outcome", module.apply(own, x, slope, noise, train))
            return outputs, activations, {}
        found = module.apply(own, x, slope, noise, train, mutable=changing)
        (outputs, activations), new_state = cast("tuple[Outcome, Mapping[str, Any]]", found)
        return outputs, activations, dict(new_state)

    network = Network(
        init,
        apply,
        graph.layers(),
        activation=architecture.activation,
        output_kernel=graph.outputs[-1],
        other_outputs=graph.outputs[:-1],
        norms=tuple(graph.norms),
        coefficients=tuple(graph.coefficients),
        features=graph.features,
        logits=0 if isinstance(architecture.head, Regression) else architecture.head.outputs,
        auxiliary=graph.auxiliary,
        stochastic=graph.stochastic or NONLINEARITIES[architecture.activation].sample is not None,
        sequence=graph.sequence,
    )
    network = injectable(network) if architecture.injectable else network
    # Outermost: a sum of networks is one network to the scale of the targets.
    return in_target_units(network, architecture.normalized_by) if architecture.normalized_by else network
