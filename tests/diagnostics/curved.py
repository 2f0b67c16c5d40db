"""Operators, networks and losses with known curvature, for the tests of curvature and kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from plasticity.curvature import Operator
from plasticity.heads import Softmax
from plasticity.networks import networks
from plasticity.networks.base import Architecture

KEY = jax.random.key(0)


def symmetric(eigenvalues, seed=0):
    """A symmetric matrix with chosen eigenvalues, float64."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(len(eigenvalues), len(eigenvalues))))
    return q * np.asarray(eigenvalues, float) @ q.T


def operator(matrix):
    """A matrix as an operator in float32."""
    matrix = jnp.asarray(matrix, jnp.float32)
    return Operator(lambda v: jnp.matmul(matrix, v, precision="highest"), len(matrix))


def with_eigenvalues(eigenvalues, seed=0):
    """An operator with chosen eigenvalues."""
    return operator(symmetric(eigenvalues, seed))


def plain(params, x):
    """Two layers with tanh, in plain functions."""
    return jnp.tanh(x @ params["w"] + params["b"]) @ params["v"]


def mlp(params, x):
    """The suite's MLP with 4 hidden units, whose matrix product has a custom gradient."""
    return NETWORK.apply({"params": params}, x)[0]


NETWORK = networks.get("mlp")(4, 1).build(Architecture(Softmax(3), activation="tanh"))


def cross_entropy(outputs, y):
    """Mean cross-entropy of labels."""
    return optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean()


def batch(n=7, seed=1):
    """Inputs and labels."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 5)).astype(np.float32), rng.integers(0, 3, n)


def some(model, seed=0):
    """Parameters of `plain` or `mlp`."""
    rng = np.random.default_rng(seed)
    if model is mlp:
        drawn = NETWORK.init(jax.random.key(seed), batch()[0])["params"]
        return jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32), drawn)
    shapes = {"w": (5, 4), "b": (4,), "v": (4, 3)}
    return {name: rng.normal(size=shape).astype(np.float32) / 2 for name, shape in shapes.items()}


MODELS = {"plain": plain, "mlp": mlp}


def loss_of(model):
    """The mean cross-entropy of a model."""
    return lambda params, x, y: cross_entropy(model(params, x), y)


def matrix_of(op):
    """The matrix of an operator, column by column."""
    return jax.vmap(op.apply)(jnp.eye(op.size, dtype=op.dtype)).T


def callbacks(function, *args):
    """Names of primitives that call the host, anywhere in a program."""
    text = str(jax.make_jaxpr(function)(*args))
    return [word for word in ("callback", "infeed", "outfeed", "debug") if word in text]
