"""Residual blocks in the place of the hidden layers of a multilayer perceptron.

    residual         x <- x + W2 phi(W1 x)
    simba            x <- x + W2 phi(W1 LN(x)), and a last LN (Lee et al. 2024, arXiv:2410.09754)
    hyperspherical   see `plasticity.networks.sphere`

The stream x `[batch, width]` begins as a linear layer of the input; after `depth` blocks come the output layers, with
two streams a hidden layer of each before them. W1 has `expansion` times `width` columns; all layers have biases. LN is
the suite's layer norm, with learned scale and offset. A normalisation that the architecture asks for stands before phi,
as in every network.

Layer names are `embedding`, `block_0` for the layer inside a block, `block_0_out` for W2, `norm_block_0_stream` and
`norm_features` for LN. The unit graph holds the layers inside the blocks. A feature of the stream is a sum of what all
blocks write, so it is no unit (as in `impala`); what the output layers read is measured as `features`, which has no
nonlinearity: `pre` is the stream, `post` its LN.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
from flax import linen as nn

from plasticity.network import Activation, Network
from plasticity.networks import sphere
from plasticity.networks.base import Architecture, Block
from plasticity.networks.normalization import normalize
from plasticity.networks.options import Normalization
from plasticity.networks.parts import Forward, Graph, Style
from plasticity.networks.record import record

LAYER_NORM = Normalization("layer")


class _Module(nn.Module):
    width: int
    depth: int
    style: Style
    block: Block

    @nn.compact
    def __call__(self, x: jax.Array, slope: Any, noise: jax.Array | None = None, train: bool = False):
        forward = Forward(self.style, slope, noise, train)

        def norm(name: str, x: jax.Array) -> jax.Array:
            return normalize(LAYER_NORM, f"norm_{name}", x, train) if self.block.kind == "simba" else x

        x = forward.linear("embedding", forward.prepare(x).reshape(x.shape[0], -1), self.width)
        for i in range(self.depth):
            y = forward.dense(f"block_{i}", norm(f"block_{i}_stream", x), self.block.expansion * self.width)
            x = x + forward.linear(f"block_{i}_out", y, self.width)
        features = norm("features", x)
        forward.activations["features"] = Activation(pre=x, post=features)
        return forward.end(features, "", self.width), forward.activations


def build(width: int, depth: int, architecture: Architecture) -> Network:
    """The network of `depth` blocks on a stream of `width`, for an architecture with a block.

    Raises `UserError` for what hyperspherical blocks do not have.
    """
    block, plain = architecture.block, replace(architecture, block=None)
    assert block is not None
    if block.kind == "hyperspherical":
        return sphere.build(width, depth, block, plain)
    style = Style.of(plain)
    graph = Graph(style)
    norms = []
    for i in range(depth):
        graph.hidden(f"block_{i}", block.expansion * width, [])
        graph.reads(f"block_{i}_out", [f"block_{i}"])
        norms.append(f"norm_block_{i}_stream")
    if block.kind == "simba":
        graph.norms += [(name, leaf) for name in (*norms, "norm_features") for leaf in ("scale", "bias")]
    graph.stream = "features"
    graph.end("", width, [])
    return record(_Module(width, depth, style, block), graph, plain)
