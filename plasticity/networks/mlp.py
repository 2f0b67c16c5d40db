"""Multilayer perceptron: `depth` hidden layers of `width` units, normalisation before each nonlinearity.

Layer names are `hidden_0 ... hidden_{depth-1}` and `output`; with two streams the last hidden layer is one of each
stream. Kernels are drawn from LeCun's normal (variance 1/fan_in), biases are zero, so the fresh draw of a reset is the
layer's own initialiser.
"""

from __future__ import annotations

from typing import Any

import jax
from flax import linen as nn

from plasticity.config import static
from plasticity.network import Network
from plasticity.networks import blocks
from plasticity.networks.base import Architecture, NetworkConfig, networks
from plasticity.networks.parts import Forward, Graph, Style
from plasticity.networks.record import record


class _Module(nn.Module):
    width: int
    depth: int
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, slope: Any, noise: jax.Array | None = None, train: bool = False):
        forward = Forward(self.style, slope, noise, train)
        x = forward.prepare(x).reshape(x.shape[0], -1)
        for i in range(self.depth - 1):
            x = forward.dense(f"hidden_{i}", x, self.width)
        return forward.end(x, f"hidden_{self.depth - 1}", self.width), forward.activations


@networks.register("mlp")
class MLP(NetworkConfig):
    """Multilayer perceptron on flattened inputs; with `simba` and the like, `depth` blocks on a stream of `width`."""

    width: int = static(128, ge=1, positional=True, unit="units", help="hidden units a layer")
    depth: int = static(2, ge=1, positional=True, unit="layers", help="hidden layers")

    def build(self, architecture: Architecture) -> Network:
        if architecture.block is not None:
            return blocks.build(self.width, self.depth, architecture)
        style = Style.of(architecture)
        graph = Graph(style)
        for i in range(self.depth - 1):
            graph.hidden(f"hidden_{i}", self.width, [f"hidden_{i - 1}"] if i else [])
        below = [f"hidden_{self.depth - 2}"] if self.depth > 1 else []
        graph.end(f"hidden_{self.depth - 1}", self.width, below)
        return record(_Module(self.width, self.depth, style), graph, architecture)
