"""ResNet-18 for small images (He et al. 2015, arXiv:1512.03385), 20 convolutions and an output layer.

A 3 x 3 convolution, then four stages of two basic blocks with w, 2 w, 4 w and 8 w channels, of which the last three
begin with stride 2; global average pooling; output. A block is x <- phi(norm(outer(phi(norm(inner(x))))) + skip(x)),
with 3 x 3 convolutions that pad one pixel on each side, and skip the identity, or a normalised 1 x 1 convolution where
the stride or the number of channels changes the shape. In the place of the source's stem for large images (7 x 7,
stride 2, max pooling) stands the 3 x 3 one that it has for CIFAR.

Layer names are `stem`, `stage_0_block_1_inner` for the layer inside a block and `stage_0_block_1` for the residual
stream behind it. Normalisation stands where the source has it: behind every convolution and before the addition, so
that it is before each nonlinearity and the identity is left alone. Under CReLU the stream has twice the channels that a
block gives, so every skip is a convolution.

The unit graph holds the layers inside the blocks. A channel of the residual stream is a sum of what several kernels
write (one of each block of its stage), and the identity carries it on whatever those kernels are: no one kernel could
be redrawn, and no outgoing kernel zeroed, to recycle it. Stream activations are measured but are not units.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from plasticity.activations import NONLINEARITIES
from plasticity.config import static
from plasticity.network import Network
from plasticity.networks.base import Architecture, NetworkConfig, networks
from plasticity.networks.normalization import normalize
from plasticity.networks.parts import Conv, Forward, Graph, Style
from plasticity.networks.record import record

STAGES, BLOCKS = 4, 2


def _stride(stage: int, block: int) -> int:
    return 2 if stage and not block else 1


def _projects(channels: int, features: int, stride: int) -> bool:
    """Whether a block that reads so many channels and gives so many has a convolution as its skip."""
    return stride > 1 or channels != features


class _Module(nn.Module):
    width: int
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, slope: Any, noise: jax.Array | None = None, train: bool = False):
        forward = Forward(self.style, slope, noise, train)

        def conv(name: str, x: jax.Array, features: int, size: int, stride: int, bias: bool = True) -> jax.Array:
            style = self.style
            if stride > 1 and size > 1:
                # SAME would pad an even size behind only, and the kernel's centre would be a pixel off the skip's.
                x, style = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), replace(style, padding="VALID")
            z = Conv(features, size, stride, style, bias, name=name)(x)
            return normalize(self.style.normalization, f"norm_{name}", z, train)

        x = forward.respond("stem", conv("stem", forward.prepare(x), self.width, 3, 1))
        for i in range(STAGES):
            for j in range(BLOCKS):
                name, features, stride = f"stage_{i}_block_{j}", self.width * 2**i, _stride(i, j)
                y = forward.respond(f"{name}_inner", conv(f"{name}_inner", x, features, 3, stride, self.style.bias))
                y = conv(f"{name}_outer", y, features, 3, 1)
                if _projects(x.shape[-1], features, stride):
                    x = conv(f"{name}_skip", x, features, 1, stride)
                x = forward.respond(name, y + x)
        pooled = jnp.mean(x, axis=(1, 2))
        return forward.end(pooled, "", pooled.shape[-1]), forward.activations


@networks.register("resnet18")
class ResNet18(NetworkConfig):
    """Residual network of 20 convolutions for images of 32 x 32 and the like; `width=4` makes a small one.

    With two streams each has a hidden layer as wide as the pooled features; a single stream has none. Convolutions have
    biases, also where a normalisation follows and the source has none.
    """

    reference = "He et al. 2015, arXiv:1512.03385"

    width: int = static(64, ge=1, positional=True, unit="channels", help="of the first stage; the last has 8 times it")
    init: str = static("he", choices=("he", "lecun", "xavier", "uniform"), help="uniform: +-1/sqrt(fan_in), biases too")
    conv: str = static("auto", choices=("auto", "lax", "matmul"), help="form of the convolution; auto: by backend")
    dtype: str = static("float32", choices=("float32", "bfloat16"), help="compute type; parameters stay float32")

    def build(self, architecture: Architecture) -> Network:
        style = Style.of(architecture, init=self.init, conv=self.conv, dtype=self.dtype)
        graph = Graph(style)
        graph.norm("stem")
        widened = NONLINEARITIES[style.activation].width
        channels = widened * self.width
        for i in range(STAGES):
            features = self.width * 2**i
            for j in range(BLOCKS):
                name, stride = f"stage_{i}_block_{j}", _stride(i, j)
                graph.hidden(f"{name}_inner", features, [])
                graph.reads(f"{name}_outer", [f"{name}_inner"])
                graph.affine(f"{name}_outer")
                if _projects(channels, features, stride):
                    graph.affine(f"{name}_skip")
                graph.response(name)
                channels = widened * features
        graph.end("", channels, [])
        return record(_Module(self.width, style), graph, architecture)
