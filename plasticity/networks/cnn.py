"""Convolutions, dense hidden layers, output, with normalisation before each nonlinearity; the networks of deep RL.

Layer names are `conv_0 ...`, `hidden` (of several `hidden_0 ...`) and `output`; with two streams the last hidden layer
and `output` are one of each stream. The units of a convolution are its channels. Where there is max pooling it stands
behind the nonlinearity, and activations are those before it. Feature maps are flattened as HWC, so channel c owns rows
c, c + C, ... of the next dense kernel.
"""

from __future__ import annotations

from typing import Any

import jax
from flax import linen as nn

from plasticity.config import static
from plasticity.network import Network
from plasticity.networks.base import Architecture, NetworkConfig, networks
from plasticity.networks.parts import Conv, Forward, Graph, Style
from plasticity.networks.pooling import max_pool
from plasticity.networks.record import record

#: (features, kernel size, stride) of each convolution.
Layers = tuple[tuple[int, int, int], ...]


def _names(widths: tuple[int, ...]) -> list[str]:
    return ["hidden"] if len(widths) == 1 else [f"hidden_{i}" for i in range(len(widths))]


class _Module(nn.Module):
    layers: Layers
    widths: tuple[int, ...]
    style: Style
    pool: int

    @nn.compact
    def __call__(self, x: jax.Array, slope: Any, noise: jax.Array | None = None, train: bool = False):
        forward = Forward(self.style, slope, noise, train)
        x = forward.prepare(x)
        for i, (features, size, stride) in enumerate(self.layers):
            layer = Conv(features, size, stride, self.style, self.style.bias, name=f"conv_{i}")
            x = max_pool(forward.activate(f"conv_{i}", layer(x)), self.pool)
        x = x.reshape(x.shape[0], -1)
        *before, last = _names(self.widths)
        for name, width in zip(before, self.widths[:-1], strict=True):
            x = forward.dense(name, x, width)
        return forward.end(x, last, self.widths[-1]), forward.activations


def build(layers: Layers, widths: tuple[int, ...], architecture: Architecture, pool: int = 1, **own: str) -> Network:
    """The network of these convolutions and dense hidden layers. pool: window of the max pooling, 1 for none."""
    style = Style.of(architecture, **own)
    graph = Graph(style)
    for i, (features, _, _) in enumerate(layers):
        graph.hidden(f"conv_{i}", features, [f"conv_{i - 1}"] if i else [])
    below, (*before, last) = f"conv_{len(layers) - 1}", _names(widths)
    for name, width in zip(before, widths[:-1], strict=True):
        graph.hidden(name, width, [below])
        below = name
    graph.end(last, widths[-1], [below])
    return record(_Module(layers, widths, style, pool), graph, architecture)


@networks.register("nature")
class Nature(NetworkConfig):
    """Three convolutions (32 of 8 x 8 / 4, 64 of 4 x 4 / 2, 64 of 3 x 3 / 1) and a hidden layer of 512.

    With SAME padding and `xavier` it is Dopamine's (7,744 features before the hidden layer on 84 x 84), with VALID and
    `uniform` DQN Zoo's and the original's (3,136 features).
    """

    reference = "Mnih et al. 2015, Nature 518"

    width: int = static(512, ge=1, positional=True, unit="units", help="units of the hidden layer")
    padding: str = static("SAME", choices=("SAME", "VALID"), help="of the convolutions")
    init: str = static("xavier", choices=("lecun", "xavier", "uniform"), help="uniform: +-1/sqrt(fan_in), biases too")
    conv: str = static("auto", choices=("auto", "lax", "matmul"), help="form of the convolution; auto: by backend")
    dtype: str = static("float32", choices=("float32", "bfloat16"), help="compute type; parameters stay float32")

    def build(self, architecture: Architecture) -> Network:
        layers = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
        own = {"padding": self.padding, "init": self.init, "conv": self.conv, "dtype": self.dtype}
        return build(layers, (self.width,), architecture, **own)


@networks.register("minatar")
class MinAtar(NetworkConfig):
    """One convolution (16 of 3 x 3 / 1, VALID) and a hidden layer of 128: the network for 10 x 10 games."""

    reference = "Young & Tian 2019, arXiv:1903.03176"

    width: int = static(128, ge=1, positional=True, unit="units", help="units of the hidden layer")
    features: int = static(16, ge=1, unit="channels", help="channels of the convolution")
    conv: str = static("auto", choices=("auto", "lax", "matmul"), help="form of the convolution; auto: by backend")

    def build(self, architecture: Architecture) -> Network:
        own = {"padding": "VALID", "init": "lecun", "conv": self.conv}
        return build(((self.features, 3, 1),), (self.width,), architecture, **own)
