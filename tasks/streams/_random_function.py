"""Random regression targets: e(x) = sin(frequency · f(x; w0)), f a random two-layer network.

The targets by which Lyle et al. measure plasticity (2023, "Understanding plasticity in neural networks",
arXiv:2303.01486): g(x) = a + sin(1e5 · f(x; w0)) with w0 a fresh initialisation. Here f has one hidden layer
of 128 ReLU units and is normalised to mean 0 and variance 1 over the examples, so that `frequency` means the
same for every data set and every draw: it is how many radians of the sine one standard deviation of f covers.

    f(x) = v · relu(W x),  W ~ N(0, 2 / inputs),  v ~ N(0, 1 / 128)

e lies in [-1, 1]. For Gaussian f its mean is 0 and its variance (1 - exp(-2 · frequency²)) / 2, about 1/2.

Deviation: the paper's frequency of 1e5 gives in effect random targets and, in float32, targets that depend on
how the machine rounds. The streams default to 3. Explained variance reached by an MLP of 2 x 256 ReLU units
(Adam, 1e-3) on 2,000 Fashion-MNIST images after 100, 400 and 2,000 updates of 100: frequency 1: .84, .98,
.99; 2: .61, .94, .99; 3: .30, .75, .98; 10: .28, .70, .95; 1e5: .24, .73, .95. From 3 on it is as hard as
random targets.

`renewed` replaces a share of e: the correlation of new and old e is 1 - share. For jointly Gaussian f of
correlation r that of e is sinh(frequency² · r) / sinh(frequency²), which is solved for r. The mix is of
functions and not of examples, because a patchwork of functions would grow more complex, so harder to fit,
from task to task, which would pass for a loss of plasticity.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from tasks.data.sets import Images

HIDDEN = 128
#: Examples passed through the random network at a time: bounds the memory when many runs switch at once.
CHUNK = 1024


def draw(key: jax.Array, data: Images) -> jax.Array:
    """f at every example, float32 `[examples]`, of mean 0 and variance 1."""
    inputs = math.prod(data.images.shape[1:])
    key_in, key_out = jax.random.split(key)
    into = jax.random.normal(key_in, (inputs, HIDDEN)) * (2 / inputs) ** 0.5
    out = jax.random.normal(key_out, (HIDDEN,)) * HIDDEN**-0.5

    def f(index: jax.Array) -> jax.Array:
        return jax.nn.relu(data.inputs(index).reshape(-1) @ into) @ out

    return standardized(jax.lax.map(f, jnp.arange(data.examples), batch_size=CHUNK))


def standardized(f: jax.Array) -> jax.Array:
    """`f` brought to mean 0 and variance 1. A constant (all images equal) becomes 0."""
    centred = f - f.mean()
    return centred / jnp.maximum(centred.std(), 1e-12)


def wave(f: jax.Array, frequency: jax.Array | float, phase: jax.Array | float = 0.0) -> jax.Array:
    """e = sin(frequency · f + phase), in [-1, 1]."""
    return jnp.sin(frequency * f + phase)


def renewed(f: jax.Array, key: jax.Array, share: jax.Array | float, frequency: jax.Array | float, data: Images):
    """f of which the share `share` (0 to 1) of e = wave(f, frequency) is new, float32 `[examples]`."""
    fresh = draw(key, data)
    # Random networks on the same images are correlated by chance: that must not add to the share kept.
    fresh = standardized(fresh - jnp.mean(fresh * f) * f)
    # 1 - r rather than r, and exponentials that vanish rather than grow: exact also for high frequencies.
    a = jnp.square(frequency)
    kept = (1 - share) * -jnp.expm1(-2 * a)
    lost = -jnp.log((kept + jnp.sqrt(jnp.square(kept) + 4 * jnp.exp(-2 * a))) / 2) / a
    lost = jnp.clip(lost, 0.0, 1.0)
    mixed = standardized((1 - lost) * f + jnp.sqrt(lost * (2 - lost)) * fresh)
    # To keep f is to keep it to the last bit, which no arithmetic does.
    return jnp.where(share > 0, mixed, f)
