"""A plain optax loop on a few arrays, for members around the optimiser; of the network there is the unit graph only."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from plasticity.mitigations import Setting
from plasticity.network import Network, Outgoing, UnitLayer

HIDDEN = UnitLayer("h", 2, ("h", "kernel"), ("h", "bias"), ("n", "scale"), ("n", "bias"), (Outgoing(("o", "kernel")),))
SHAPES = {
    "h": {"kernel": (3, 2), "bias": (2,)},
    "n": {"scale": (2,), "bias": (2,)},
    "o": {"kernel": (2, 1), "bias": (1,)},
}
LR = 0.1
SGD = optax.with_extra_args_support(optax.sgd(LR))
STILL = optax.with_extra_args_support(optax.set_to_zero())
RNG = np.random.default_rng(0)


def draw():
    return jax.tree.map(
        lambda shape: jnp.asarray(RNG.normal(size=shape), jnp.float32), SHAPES, is_leaf=lambda x: isinstance(x, tuple)
    )


PARAMS, GRADS = draw(), [draw() for _ in range(8)]


def initializer(key):
    return {"params": jax.tree.map(lambda p: jax.random.normal(key, p.shape), PARAMS)}


def setting(key=7):
    nothing: Network = Network(lambda key, x: {}, lambda v, x: (x, {}, {}), (HIDDEN,), output_kernel=("o", "kernel"))
    return Setting(nothing, initializer, LR, jax.random.key(key))


def around(member, tx=SGD):
    return member.optimizer(tx, setting())


def run(tx, params=PARAMS, grads=GRADS, state=None):
    """(parameters after each update, last state) of a plain optax loop."""
    state, found, update = tx.init(params) if state is None else state, [], jax.jit(tx.update)
    for g in grads:
        updates, state = update(g, state, params)
        params = optax.apply_updates(params, updates)
        found.append(params)
    return found, state


def one(tx, params=PARAMS, grads=GRADS[0], **extra):
    return tx.update(grads, tx.init(params), params, **extra)[0]


def close(a, b, rtol=1e-5, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def doubles(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)
