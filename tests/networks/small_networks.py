"""Networks of deep RL for tests: built from their text, with parameters that are random everywhere."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.heads import Categorical, Regression
from plasticity.networks import Architecture, networks
from plasticity.spec import build_one

ATARI = (1, 84, 84, 4)
SCALAR = Regression(-1.0, 1.0)
C51 = Categorical(51, -10.0, 10.0)


def build(spec, head=SCALAR, predictions=4, **options):
    return build_one(spec, networks).build(Architecture(head, predictions=predictions, **options))


def shapes(network, input_shape):
    return jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(input_shape))["params"]


def randomised(network, x, seed=1):
    """Variables that are random everywhere, scaled to keep outputs near 1: zero biases would not be seen."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        fan_in = math.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 4
        return jnp.asarray(rng.normal(size=leaf.shape) / fan_in**0.5, jnp.float32)

    return {"params": jax.tree.map(draw, jax.eval_shape(network.init, jax.random.key(0), x)["params"])}


def convolve(x, kernel, stride, padding):
    """A convolution tap by tap, in the type of x."""
    size = kernel.shape[0]
    if padding == "SAME":
        margins = []
        for n in x.shape[1:3]:
            total = max((-(-n // stride) - 1) * stride + size - n, 0)
            margins.append((total // 2, total - total // 2))
        x = np.pad(x, [(0, 0), *margins, (0, 0)])
    rows, columns = ((n - size) // stride + 1 for n in x.shape[1:3])
    return sum(
        x[:, a : a + rows * stride : stride, b : b + columns * stride : stride][:, :rows, :columns] @ kernel[a, b]
        for a in range(size)
        for b in range(size)
    )
