"""The residual network of IMPALA (Espeholt et al. 2018, arXiv:1802.01561), 15 convolutions.

Three stages of 16, 32 and 32 channels (times `scale`): a 3 x 3 convolution, 3 x 3 max pooling with stride 2, and two
residual blocks; then a hidden layer of 256. Normalisation stands before each nonlinearity. Layer names are
`stage_0_block_1_inner` for the layer inside a block, `stage_0_block_1_stream` for the residual stream where a block
reads it, `stream` at the end.

The unit graph holds the layers inside the blocks and the dense ones. A channel of the residual stream is a sum of what
several kernels write, so there is no one kernel to recycle: stream activations are measured but are not units.
"""

from __future__ import annotations

from typing import Any

import jax
from flax import linen as nn

from plasticity.config import static
from plasticity.network import Network
from plasticity.networks.base import Architecture, NetworkConfig, networks
from plasticity.networks.parts import Conv, Forward, Graph, Style
from plasticity.networks.record import record

BLOCKS = 2


class _Module(nn.Module):
    channels: tuple[int, ...]
    width: int
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, slope: Any, noise: jax.Array | None = None, train: bool = False):
        forward = Forward(self.style, slope, noise, train)
        x = forward.prepare(x)
        for i, features in enumerate(self.channels):
            x = Conv(features, 3, 1, self.style, name=f"stage_{i}")(x)
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
            for j in range(BLOCKS):
                name = f"stage_{i}_block_{j}"
                inner = Conv(features, 3, 1, self.style, self.style.bias, name=f"{name}_inner")
                y = inner(forward.activate(f"{name}_stream", x))
                y = forward.activate(f"{name}_inner", y)
                x = x + Conv(features, 3, 1, self.style, name=f"{name}_outer")(y)
        x = forward.activate("stream", x)
        return forward.end(x.reshape(x.shape[0], -1), "hidden", self.width), forward.activations


@networks.register("impala")
class Impala(NetworkConfig):
    """Residual network of 15 convolutions and a hidden layer."""

    reference = "Espeholt et al. 2018, arXiv:1802.01561"

    width: int = static(256, ge=1, positional=True, unit="units", help="units of the hidden layer")
    scale: int = static(1, ge=1, help="factor on the channels 16, 32, 32")
    init: str = static("xavier", choices=("lecun", "xavier", "uniform"), help="uniform: +-1/sqrt(fan_in), biases too")
    conv: str = static("auto", choices=("auto", "lax", "matmul"), help="form of the convolution; auto: by backend")
    dtype: str = static("float32", choices=("float32", "bfloat16"), help="compute type; parameters stay float32")

    def build(self, architecture: Architecture) -> Network:
        style = Style.of(architecture, init=self.init, conv=self.conv, dtype=self.dtype)
        channels = tuple(c * self.scale for c in (16, 32, 32))
        graph = Graph(style)
        for i, features in enumerate(channels):
            for j in range(BLOCKS):
                inner = f"stage_{i}_block_{j}_inner"
                graph.norm(f"stage_{i}_block_{j}_stream")
                graph.hidden(inner, features, [])
                graph.reads(f"stage_{i}_block_{j}_outer", [inner])
        graph.norm("stream")
        graph.end("hidden", self.width, [])
        return record(_Module(channels, self.width, style), graph, architecture)
