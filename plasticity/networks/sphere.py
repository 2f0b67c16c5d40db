"""Hyperspherical normalisation (SimbaV2; Lee et al. 2025, arXiv:2502.15280): features and kernel columns of norm 1.

With n(v) = v / max(|v|, 1e-8) and scalers s, a learned factor of each unit:

    x <- n([input, 3])                               the shift keeps the input's length in its direction
    h <- n(s * (W x))                                embedding
    h <- n(h + a * (n(V phi(s * (U h))) - h))        `depth` blocks, U has `expansion` times `width` columns
    output <- Q (s * (P h)) + b                      P square; of each of two streams

No kernel has a bias; the one bias is the output's. Columns of kernels are drawn as normals scaled to norm 1 and kept so
by the mitigation's projection. A scaler that starts as `start` is stored as `scale` and applied as stored * (start /
scale), which sets how far an update moves it. In the source, with d = width and L = depth: start and scale are
sqrt(2 / d), in a block sqrt(2 / (expansion d)); of a they are 1 / (L + 1) and 1 / sqrt(d).

Left out: running statistics of observations (the suite's inputs are scaled already), the bounded scale of rewards and
the categorical head (compose `two_hot`), the source's learning rate schedule, its orthogonal draws (columns of norm 1
here too, not orthogonal to each other) and the 1e-8 that it adds to phi, for n gives 0 for 0 here.

Layer names are `embedding`, `block_0` (U, in the unit graph; its scaler is its `gain`), `block_0_out` (V),
`block_0_mix` (a), `head` (P), `output` (Q), the last two of each stream. `features` is h, pre and post: it has no
nonlinearity.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from plasticity.errors import UserError
from plasticity.network import Activation, Network
from plasticity.networks.base import Architecture, Block
from plasticity.networks.linear import matmul
from plasticity.networks.options import PLAIN
from plasticity.networks.parts import STREAMS, Forward, Graph, Style
from plasticity.networks.record import record

SHIFT = 3.0
EPSILON = 1e-8


def unit(x: jax.Array, axis: int = -1) -> jax.Array:
    """x scaled to Euclidean norm 1 along an axis; 0 stays 0, and its gradient is finite."""
    squares = jnp.sum(jnp.square(x), axis, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squares, EPSILON**2))


def columns(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """A kernel `[in, out]` with columns that are uniform on the sphere."""
    return unit(jax.random.normal(key, shape, dtype), axis=0)


class _Dense(nn.Module):
    """`x[batch, in] -> [batch, features]` without bias; start: of the scaler behind it, 0 for none."""

    features: int
    start: float = 0.0
    scale: float = 1.0
    bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = matmul(x, self.param("kernel", columns, (x.shape[-1], self.features)))
        if self.start:
            gain = self.param("gain", jax.nn.initializers.constant(self.scale), (self.features,))
            y = y * (gain * (self.start / self.scale))
        return y + self.param("bias", jax.nn.initializers.zeros, (self.features,)) if self.bias else y


class _Mix(nn.Module):
    """h, y -> h + a (y - h), a of each feature."""

    start: float
    scale: float

    @nn.compact
    def __call__(self, h: jax.Array, y: jax.Array) -> jax.Array:
        a = self.param("gain", jax.nn.initializers.constant(self.scale), h.shape[-1:])
        return h + a * (self.start / self.scale) * (y - h)


class _Module(nn.Module):
    width: int
    depth: int
    style: Style
    block: Block

    @nn.compact
    def __call__(self, x: jax.Array, slope: Any, noise: jax.Array | None = None, train: bool = False):
        forward, style, d = Forward(self.style, slope, noise, train), self.style, self.width
        start = (2 / d) ** 0.5
        inside = start / self.block.expansion**0.5
        x = forward.prepare(x).reshape(x.shape[0], -1)
        x = unit(jnp.concatenate([x, jnp.full((x.shape[0], 1), SHIFT, x.dtype)], axis=1))
        h = unit(_Dense(d, start, start, name="embedding")(x))
        for i in range(self.depth):
            z = _Dense(self.block.expansion * d, inside, inside, name=f"block_{i}")(h)
            y = unit(_Dense(d, name=f"block_{i}_out")(forward.activate(f"block_{i}", z)))
            h = unit(_Mix(1 / (self.depth + 1), d**-0.5, name=f"block_{i}_mix")(h, y))
        forward.activations["features"] = Activation(pre=h, post=h)

        forward.auxiliary("auxiliary", h)

        def end(prefix: str, predictions: int) -> jax.Array:
            z = _Dense(d, start, start, name=f"{prefix}head")(h)
            return _Dense(predictions * style.outputs, bias=True, name=f"{prefix}output")(z)

        if not style.dueling:
            return end("", style.predictions), forward.activations
        value, advantage = end("value_", 1), end("advantage_", style.predictions)
        advantage = advantage.reshape(-1, style.predictions, style.outputs)
        q = value[:, None] + advantage - jnp.mean(advantage, axis=1, keepdims=True)
        return q.reshape(q.shape[0], -1), forward.activations


def build(width: int, depth: int, block: Block, architecture: Architecture) -> Network:
    """The hyperspherical network. Raises `UserError` for kernels of another kind and for noisy layers."""
    if architecture.kernels != PLAIN or architecture.init is not None:
        raise UserError(
            "hyperspherical kernels have columns of norm 1, drawn and kept so: they cannot be of another kind"
        )
    if architecture.noise:
        raise UserError(f"hyperspherical layers have no noise: noise must be 0, got {architecture.noise}")
    style = Style.of(replace(architecture, bias=False))
    graph = Graph(style)
    for i in range(depth):
        graph.hidden(f"block_{i}", block.expansion * width, [], gain=True)
        graph.reads(f"block_{i}_out", [f"block_{i}"])
    prefixes = [f"{stream}_" for stream in STREAMS] if style.dueling else [""]
    graph.features = ("features",)
    graph.outputs = tuple((f"{prefix}output", "kernel") for prefix in prefixes)
    graph.auxiliary = (("auxiliary", "kernel"),) if style.auxiliary else ()
    return record(_Module(width, depth, style, block), graph, architecture)
