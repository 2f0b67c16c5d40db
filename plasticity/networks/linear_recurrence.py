"""Gated linear recurrence: a sequence model whose state is a running average (after De et al. 2024, arXiv:2402.19427).

A table of tokens; `depth` blocks of a recurrence and a feed-forward layer, see `plasticity.networks.stream`; output.
The recurrence is the source's RG-LRU, by feature, with u_t linear in LN(x_t) and W linear in the state:

    r_t = sigmoid(R u_t),  i_t = sigmoid(I u_t)
    a_t = exp(-8 softplus(l) r_t)
    h_t = a_t h_{t-1} + sqrt(1 - a_t^2) i_t u_t          added to the stream: W h_t

l, the `rate` of `block_0_decay`, is drawn so that exp(-8 softplus(l)), the decay where the gate is open, is uniform on
.9 ... .999. 1 - a^2 is at least 1e-6, which bounds the gradient of the root (the source bounds the gradient itself).

Left out: the source's convolution before the recurrence and the GELU branch that is multiplied with the state; its
gates are blocks on the diagonal, here they are whole kernels; its feed-forward layer is gated, here it is a plain one.
Layer names are `block_0_value` for u, `block_0_recurrence_gate` and `block_0_input_gate` for R and I, all with biases,
and `block_0_projection` for W. The gates' sigmoids are no hidden layers. Penalties leave the rates alone, as is usual
for decays of recurrences: at 0 there would be no memory.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from plasticity.config import static
from plasticity.network import Network
from plasticity.networks.base import Architecture, NetworkConfig, networks
from plasticity.networks.parts import Forward, Style
from plasticity.networks.record import record
from plasticity.networks.recurrence import recurrence
from plasticity.networks.stream import blocks, graph_of
from plasticity.networks.tables import looked_up, vocabulary

SHARPNESS = 8.0
DECAYS = (0.9, 0.999)
FLOOR = 1e-6


def drawn_rates(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """l with exp(-8 softplus(l)) uniform on .9 ... .999."""
    decay = jax.random.uniform(key, shape, dtype, *DECAYS)
    return jnp.log(jnp.expm1(-jnp.log(decay) / SHARPNESS))


class _Decay(nn.Module):
    """log a of a recurrence gate `[..., features]`. Parameter: `rate[features]`."""

    @nn.compact
    def __call__(self, gate: jax.Array) -> jax.Array:
        rate = self.param("rate", drawn_rates, gate.shape[-1:])
        return -SHARPNESS * jax.nn.softplus(rate) * gate


class _Module(nn.Module):
    width: int
    depth: int
    expansion: int
    tokens: int
    form: str
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, slope: Any, noise: jax.Array | None = None, train: bool = False):
        forward = Forward(self.style, slope, noise, train)
        x = looked_up(forward, x, self.tokens, self.width)

        def mix(block: str, x: jax.Array) -> jax.Array:
            u = forward.linear(f"{block}_value", x, self.width)
            # In float32 whatever the compute type: a state adds up over many positions.
            r, i = (
                jax.nn.sigmoid(forward.linear(f"{block}_{name}_gate", u, self.width).astype(jnp.float32))
                for name in ("recurrence", "input")
            )
            log_a = _Decay(name=f"{block}_decay")(r)
            b = jnp.sqrt(jnp.maximum(-jnp.expm1(2 * log_a), FLOOR)) * i * u
            h = recurrence(forward.folded(jnp.exp(log_a)), forward.folded(b), self.form)
            return forward.linear(f"{block}_projection", h.reshape(u.shape).astype(u.dtype), self.width)

        features = blocks(forward, x, self.depth, self.expansion, mix)
        return forward.end(features, "", self.width), forward.activations


@networks.register("linear_recurrence")
class LinearRecurrence(NetworkConfig):
    """Gated linear recurrence that predicts the next token at each position; for tasks of tokens.

    No dropout. The nonlinearity is that of the feed-forward layers, ReLU if nothing else is composed. With two streams
    each has a hidden layer as wide as the stream; a single stream has none.
    """

    reference = "De et al. 2024, arXiv:2402.19427 (simplified)"

    width: int = static(64, ge=1, positional=True, unit="features", help="of the stream and of the state")
    depth: int = static(2, ge=1, positional=True, unit="blocks", help="of recurrence and feed-forward layer")
    expansion: int = static(4, ge=1, help="units inside a block, as a multiple of width")
    form: str = static("auto", choices=("auto", "scan", "associative"), help="of the recurrence; auto: by backend")
    init: str = static("lecun", choices=("lecun", "xavier", "uniform"), help="uniform: +-1/sqrt(fan_in), biases too")
    dtype: str = static("float32", choices=("float32", "bfloat16"), help="compute type; parameters stay float32")

    def build(self, architecture: Architecture) -> Network:
        tokens = vocabulary(self.name, architecture)
        style = Style.of(architecture, init=self.init, dtype=self.dtype)
        graph = graph_of(style, self.width, self.depth, self.expansion)
        graph.sequence = True
        graph.coefficients += [(f"block_{i}_decay", "rate") for i in range(self.depth)]
        module = _Module(self.width, self.depth, self.expansion, tokens, self.form, style)
        return record(module, graph, architecture)
