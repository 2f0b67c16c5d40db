"""Decoder-only transformer: a sequence model with causal attention (Radford et al. 2019, GPT-2, in outline).

A table of tokens; `depth` blocks of causal attention with rotary positions and a feed-forward layer, see
`plasticity.networks.stream`; output, with a kernel of its own. Tokens are the integers 0 ... outputs - 1 of the head:
each position predicts the next token, from itself and earlier ones. Rotary positions are in the place of the source's
table of positions, so that the number of positions is free. Tokens are drawn with deviation 1, as torch has it.
"""

from __future__ import annotations

from typing import Any

import jax
from flax import linen as nn

from plasticity.config import static
from plasticity.errors import UserError
from plasticity.network import Network
from plasticity.networks.attention import attention
from plasticity.networks.base import Architecture, NetworkConfig, networks
from plasticity.networks.parts import Forward, Style
from plasticity.networks.record import record
from plasticity.networks.stream import blocks, graph_of
from plasticity.networks.tables import looked_up, vocabulary


class _Module(nn.Module):
    width: int
    depth: int
    heads: int
    expansion: int
    tokens: int
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, slope: Any, noise: jax.Array | None = None, train: bool = False):
        forward = Forward(self.style, slope, noise, train)
        x = looked_up(forward, x, self.tokens, self.width)

        def mix(block: str, x: jax.Array) -> jax.Array:
            return attention(forward, block, x, self.heads, causal=True, rotary=True)

        features = blocks(forward, x, self.depth, self.expansion, mix)
        return forward.end(features, "", self.width), forward.activations


@networks.register("transformer")
class Transformer(NetworkConfig):
    """Decoder-only transformer that predicts the next token at each position; for tasks of tokens.

    No dropout. The nonlinearity is the architecture's, ReLU if nothing else is composed. With two streams each has a
    hidden layer as wide as the stream; a single stream has none.
    """

    reference = "Vaswani et al. 2017, arXiv:1706.03762; Su et al. 2021, arXiv:2104.09864 (rotary positions)"

    width: int = static(64, ge=1, positional=True, unit="features", help="of the stream")
    depth: int = static(2, ge=1, positional=True, unit="blocks", help="of attention and feed-forward layer")
    heads: int = static(4, ge=1, help="of the attention; each has an even number of features")
    expansion: int = static(4, ge=1, help="units inside a block, as a multiple of width")
    init: str = static("lecun", choices=("lecun", "xavier", "uniform"), help="uniform: +-1/sqrt(fan_in), biases too")
    dtype: str = static("float32", choices=("float32", "bfloat16"), help="compute type; parameters stay float32")

    def validate(self) -> None:
        if self.width % (2 * self.heads):
            raise UserError(
                f"{self.name}: width must be a multiple of 2 x heads, for rotary positions turn pairs of features; "
                f"got width={self.width}, heads={self.heads}"
            )

    def build(self, architecture: Architecture) -> Network:
        tokens = vocabulary(self.name, architecture)
        style = Style.of(architecture, init=self.init, dtype=self.dtype)
        graph = graph_of(style, self.width, self.depth, self.expansion)
        graph.sequence = True
        return record(_Module(self.width, self.depth, self.heads, self.expansion, tokens, style), graph, architecture)
