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


def group_equals_singles(network, x, head, y):
    """Assert that a few SGD steps in a scan, from two starts, come out alike under vmap and one by one."""

    def train(params):
        def step(params, _):
            grads = jax.grad(lambda p: jnp.mean(head.loss(network.apply({"params": p}, x)[0], y)))(params)
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), None

        return jax.lax.scan(step, params, length=3)[0]

    lanes = [randomised(network, x, seed)["params"] for seed in range(2)]
    group = jax.jit(jax.vmap(train))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *lanes))
    single = jax.jit(train)
    for i, params in enumerate(lanes):
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-3, atol=1e-4), group, single(params))
