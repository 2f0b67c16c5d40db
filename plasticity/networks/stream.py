"""Pre-norm blocks on a residual stream of positions: what `vit`, `transformer` and `linear_recurrence` share.

    x <- x + mix(LN(x)),   x <- x + W2 phi(W1 LN(x))      `depth` times; then the features LN(x)

The stream is kept as rows `[batch * positions, width]`, so that every layer is one matrix product and every norm is of
one position: no position sees another, but through `mix`. LN is the suite's layer norm, with learned scale and offset,
left alone by penalties. A normalisation that the architecture asks for stands before phi, as in every network.

Layer names are `block_0` for the layer inside a block, `block_0_out` for W2, `norm_block_0_mix`, `norm_block_0_stream`
and `norm_features` for LN. The unit graph holds the layers inside the blocks. A feature of the stream is a sum of what
all blocks write, so it is no unit; what the output layers read is measured as `features`, which has no nonlinearity:
`pre` is the stream, `post` its LN. Kernels are drawn from LeCun's normal, biases are zero.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from plasticity.networks.normalization import normalize
from plasticity.networks.options import Normalization
from plasticity.networks.parts import Forward, Graph, Style
from plasticity.rng import named

LAYER_NORM = Normalization("layer")
#: `(block's name, LN(x)) -> what is added to the stream`, rows to rows.
Mix = Callable[[str, jax.Array], jax.Array]


def norm(forward: Forward, name: str, x: jax.Array) -> jax.Array:
    """A layer norm of the stream's own."""
    return normalize(LAYER_NORM, f"norm_{name}", x, forward.train)


def dropout(forward: Forward, name: str, x: jax.Array, rate: float) -> jax.Array:
    """In training a share `rate` of entries is zero, by the pass's key, the others are 1 / (1 - rate) times as large.

    (Srivastava et al. 2014, JMLR 15.) Without a key, and outside training, x itself.
    """
    if not rate or not forward.train or forward.noise is None:
        return x
    kept = jax.random.bernoulli(named(forward.noise, f"dropout_{name}"), 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), 0)


def blocks(forward: Forward, x: jax.Array, depth: int, expansion: int, mix: Mix, rate: float = 0.0) -> jax.Array:
    """Features from rows `x[batch * positions, width]`. rate: dropout of what is added to the stream."""
    width = x.shape[-1]
    for i in range(depth):
        name = f"block_{i}"
        x = x + dropout(forward, f"{name}_mix", mix(name, norm(forward, f"{name}_mix", x)), rate)
        y = forward.dense(name, norm(forward, f"{name}_stream", x), expansion * width)
        x = x + dropout(forward, name, forward.linear(f"{name}_out", y, width), rate)
    features = norm(forward, "features", x)
    forward.keep("features", x, features)
    return features


def graph_of(style: Style, width: int, depth: int, expansion: int) -> Graph:
    """The unit graph of `blocks` and the end behind it: with two streams a hidden layer of each, else none."""
    graph = Graph(style)
    for i in range(depth):
        name = f"block_{i}"
        graph.hidden(name, expansion * width, [])
        graph.reads(f"{name}_out", [name])
        graph.norms += [(f"norm_{name}_{place}", leaf) for place in ("mix", "stream") for leaf in ("scale", "bias")]
    graph.norms += [("norm_features", "scale"), ("norm_features", "bias")]
    graph.stream = "features"
    graph.end("", width, [])
    return graph
