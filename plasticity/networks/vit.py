"""Vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929): attention between patches of an image.

A linear embedding of each patch and a trained offset for each place; `depth` blocks of attention and a feed-forward
layer, see `plasticity.networks.stream`; the mean over patches; output. Names are `embedding` for the patches' kernel
and `places` for the offsets. Images that the patch does not divide are padded with zeros, one pixel more behind than
before if their number is odd, as a convolution with SAME padding has it: 28 x 28 in patches of 3 are 10 x 10.

The source has a further token for the class, whose features are read; reading the mean over patches is recalled from
Beyer et al. 2022 (arXiv:2205.01580). Offsets are drawn with deviation .02, as there (recalled).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from plasticity.config import static
from plasticity.errors import UserError
from plasticity.network import Network
from plasticity.networks.attention import attention
from plasticity.networks.base import Architecture, NetworkConfig, networks
from plasticity.networks.parts import Conv, Forward, Style
from plasticity.networks.record import record
from plasticity.networks.stream import blocks, dropout, graph_of
from plasticity.networks.tables import Table

OFFSET_STD = 0.02


class _Module(nn.Module):
    width: int
    depth: int
    heads: int
    patch: int
    expansion: int
    rate: float
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, slope: Any, noise: jax.Array | None = None, train: bool = False):
        forward = Forward(self.style, slope, noise, train)
        x = Conv(self.width, self.patch, self.patch, self.style, name="embedding")(forward.prepare(x))
        x = x.reshape(x.shape[0], -1, self.width)
        forward.positions = x.shape[1]
        x = x + Table(x.shape[1], self.width, OFFSET_STD, name="places")().astype(x.dtype)
        x = dropout(forward, "embedding", x.reshape(-1, self.width), self.rate)

        def mix(block: str, x: jax.Array) -> jax.Array:
            return attention(forward, block, x, self.heads)

        features = blocks(forward, x, self.depth, self.expansion, mix, self.rate)
        pooled = jnp.mean(forward.folded(features), axis=1)
        forward.positions = 0
        return forward.end(pooled, "", self.width), forward.activations


@networks.register("vit")
class ViT(NetworkConfig):
    """Vision transformer, by default the small one of Lyle et al. 2023; `vit(192, 12, heads=3, patch=4)` is ViT-Ti.

    Of Lyle et al. 2023 patch 3, width 256, feed-forward 1,024, one block and dropout .1 were read; heads, norms and
    what the output reads were not, and are this suite's choices. Dropout is off unless asked for: `dropout=.1` drops
    entries of the embedded patches and of what each layer adds to the stream; where the source has it was not read.
    With two streams each has a hidden layer as wide as the stream; a single stream has none. The nonlinearity is the
    architecture's, ReLU if nothing else is composed, where the sources have GELU.
    """

    reference = "Dosovitskiy et al. 2021, arXiv:2010.11929; Lyle et al. 2023, arXiv:2303.01486"

    width: int = static(256, ge=1, positional=True, unit="features", help="of the stream")
    depth: int = static(1, ge=1, positional=True, unit="blocks", help="of attention and feed-forward layer")
    heads: int = static(4, ge=1, help="of the attention; they divide width")
    patch: int = static(3, ge=1, unit="pixels", help="height and width of a patch")
    expansion: int = static(4, ge=1, help="units inside a block, as a multiple of width")
    dropout: float = static(0.0, ge=0, le=0.9, help="share of entries, in training")
    init: str = static("lecun", choices=("lecun", "xavier", "uniform"), help="uniform: +-1/sqrt(fan_in), biases too")
    dtype: str = static("float32", choices=("float32", "bfloat16"), help="compute type; parameters stay float32")

    def validate(self) -> None:
        if self.width % self.heads:
            raise UserError(f"{self.name}: heads must divide width, got heads={self.heads}, width={self.width}")

    def build(self, architecture: Architecture) -> Network:
        # Patches side by side are one product, whatever the backend.
        style = Style.of(architecture, init=self.init, conv="matmul", dtype=self.dtype)
        graph = graph_of(style, self.width, self.depth, self.expansion)
        graph.stochastic = self.dropout > 0
        module = _Module(self.width, self.depth, self.heads, self.patch, self.expansion, self.dropout, style)
        return record(module, graph, architecture)
