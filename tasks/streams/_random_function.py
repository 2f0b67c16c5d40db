"""Random regression targets: e(x) = sin(frequency · f(x; w0)), f a random two-layer network.

The targets by which Lyle et al. measure plasticity (2023, "Understanding plasticity in neural networks",
arXiv:2303.01486): g(x) = a + sin(1e5 · f(x; w0)) with w0 a fresh initialisation. Here f has one hidden layer of 128
ReLU units and is normalised to mean 0 and variance 1 over the examples, so that `frequency` means the same for every
data set and every draw: it is how many radians of the sine one standard deviation of f covers.

    f(x) = v · relu(W x),  W ~ N(0, 2 / inputs),  v ~ N(0, 1 / 128)

e lies in [-1, 1]. For Gaussian f its mean is 0 and its variance (1 - exp(-2 · frequency²)) / 2. Deviation: the paper's
frequency of 1e5 gives in effect random targets (and, in float32, targets that depend on how the machine rounds); the
streams default to 3, which a network of the size used on a laptop learns in part within one task.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from tasks.base import Data

HIDDEN = 128
#: Examples passed through the random network at a time: bounds the memory when many runs switch at once.
CHUNK = 1024


def draw(key: jax.Array, data: Data) -> jax.Array:
    """f at every example, float32 `[examples]`, of mean 0 and variance 1."""
    inputs = math.prod(data.images.shape[1:])
    key_in, key_out = jax.random.split(key)
    into = jax.random.normal(key_in, (inputs, HIDDEN)) * (2 / inputs) ** 0.5
    out = jax.random.normal(key_out, (HIDDEN,)) * HIDDEN**-0.5

    def f(index: jax.Array) -> jax.Array:
        return jax.nn.relu(data.inputs(index).reshape(-1) @ into) @ out

    return standardized(jax.lax.map(f, jnp.arange(data.labels.shape[0]), batch_size=CHUNK))


def standardized(f: jax.Array) -> jax.Array:
    """`f` brought to mean 0 and variance 1. A constant (all images equal) becomes 0."""
    centred = f - f.mean()
    return centred / jnp.maximum(centred.std(), 1e-12)


def wave(f: jax.Array, frequency: jax.Array | float) -> jax.Array:
    """e = sin(frequency · f), in [-1, 1]."""
    return jnp.sin(frequency * f)
