"""How the kernel that a layer applies follows from the one that is trained, by name.

    plain          as it is
    weight_norm    g v / |v|, for each unit (a column; in a convolution all that feeds a channel): v the parameter
                   `kernel`, g the parameter `gain`, which starts as |v|, so that the function starts as the plain
                   one; |v| = 0 gives 0 (Salimans & Kingma 2016, arXiv:1602.07868)
    spectral_norm  W / sigma, sigma the largest singular value of W, as a matrix of all inputs by units
                   (Miyato et al. 2018, arXiv:1802.05957); sigma = 0 gives 0

sigma is estimated by a power iteration that goes one step an update: v = W u / |W u|, u = W^T v / |W^T v|, and then
sigma = v^T W u. u is the collection `spectral_stats`; the gradient passes through W and sigma, with u and v constant.
Outside training u stays, and sigma is |W u|. At the start u has gone through 15 steps (as in torch).

Biases are left as they are. What the optimiser, decay, penalties and diagnostics of weights see is what is trained.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

STEPS_AT_THE_START = 15


def applied(layer: nn.Module, kind: str, kernel: jax.Array) -> jax.Array:
    """The kernel that `layer` applies, from its parameter `kernel[..., in, units]`; to be called where it is compact.

    After the layer's other parameters: their draws are then those of a plain layer.
    """
    if kind == "weight_norm":
        squares = jnp.sum(jnp.square(kernel), tuple(range(kernel.ndim - 1)))
        # 1 where there is nothing: 0 / 0 otherwise, in the gradient as well.
        norms = jnp.sqrt(jnp.where(squares > 0, squares, 1.0))
        gain = layer.param("gain", lambda key: jnp.where(squares > 0, norms, 0.0))
        return kernel * (gain / norms)
    return _spectral(layer, kernel) if kind == "spectral_norm" else kernel


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


def _step(matrix: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(u, v) after one step of the power iteration on `matrix[in, units]`."""
    v = _unit(matrix @ u)
    return _unit(matrix.T @ v), v


def _spectral(layer: nn.Module, kernel: jax.Array) -> jax.Array:
    matrix = kernel.reshape(-1, kernel.shape[-1])
    fixed = jax.lax.stop_gradient(matrix)

    def start() -> jax.Array:
        # The same direction for every network: what is random in it comes from the kernel.
        u = _unit(jax.random.normal(jax.random.key(0), (matrix.shape[1],)))
        return jax.lax.fori_loop(0, STEPS_AT_THE_START, lambda _, u: _step(fixed, u)[0], u)

    stored = layer.variable("spectral_stats", "u", start)
    u, v = stored.value, _unit(fixed @ stored.value)
    if layer.is_mutable_collection("spectral_stats") and not layer.is_initializing():
        # The collections of a network may change in training only.
        u = stored.value = _unit(fixed.T @ v)
    sigma = v @ matrix @ u
    return kernel / jnp.where(sigma > 0, sigma, 1.0)
