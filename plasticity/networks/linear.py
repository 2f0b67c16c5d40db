"""Dense layers: the matrix product with a gradient in the kernel's own layout, and factorised Gaussian noise.

A noisy layer (Fortunato et al. 2018, arXiv:1706.10295, eqs. 10 and 11) computes y = x (W + S * (f(e) f(e')^T)) + b +
s * f(e'), with f(e) = sign(e) sqrt(|e|) of standard normal e `[in]`, e' `[out]`, one draw a batch. It is evaluated as
x W + ((x * f(e)) S) * f(e') + ..., which never forms the noise matrix.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from plasticity.networks.kernels import applied
from plasticity.networks.options import Sparse
from plasticity.rng import named


@jax.custom_vjp
def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`x @ kernel` for `[batch, in]` and `[in, out]`.

    JAX derives the gradient of the kernel as the transpose of `[out, in]`, which XLA on a CPU leaves to the optimiser
    to read column by column. Stated directly it has the layout of the kernel; benchmarks/README.md has what it saves.
    """
    return x @ kernel


def _matmul_forward(x: jax.Array, kernel: jax.Array):
    return x @ kernel, (x, kernel)


def _matmul_backward(saved: tuple[jax.Array, jax.Array], grad: jax.Array):
    x, kernel = saved
    return grad @ kernel.T, jax.lax.dot_general(x, grad, (((0,), (0,)), ((), ())))


matmul.defvjp(_matmul_forward, _matmul_backward)


def _scaled(key: jax.Array, size: int) -> jax.Array:
    e = jax.random.normal(key, (size,))
    return jnp.sign(e) * jnp.sqrt(jnp.abs(e))


def uniform_fan_in(scale: float = 1.0) -> Any:
    """Uniform on +- scale / sqrt(fan_in): what Torch's layers and DQN Zoo's networks start from, biases as well."""
    return jax.nn.initializers.variance_scaling(scale**2 / 3, "fan_in", "uniform")


#: Initialisers of kernels by name. With `uniform` biases are drawn too, with the others they are zero.
INITIALIZERS: dict[str, Any] = {
    "lecun": jax.nn.initializers.lecun_normal(),
    "he": jax.nn.initializers.he_normal(),
    "xavier": jax.nn.initializers.xavier_uniform(),
    "uniform": uniform_fan_in(),
}


def sparse(options: Sparse) -> Any:
    """Uniform on +- 1 / sqrt(fan_in), then zeros at random places, equally many in what feeds each unit.

    (Elsayed et al. 2024, arXiv:2410.14606.) fan_in counts the zeros: nothing makes up for them.
    """

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        fan_in = math.prod(shape[:-1])
        values = jax.random.uniform(named(key, "values"), (fan_in, shape[-1]), dtype, -(fan_in**-0.5), fan_in**-0.5)
        zero = jnp.broadcast_to(jnp.arange(fan_in)[:, None] < options.zeros(fan_in), values.shape)
        zero = jax.random.permutation(named(key, "places"), zero, axis=0, independent=True)
        return jnp.where(zero, 0.0, values).reshape(shape)

    return draw


def kernel_initializer(init: str | Sparse) -> Any:
    """A kernel's initialiser."""
    return sparse(init) if isinstance(init, Sparse) else INITIALIZERS[init]


def bias_initializer(init: str | Sparse, fan_in: int) -> Any:
    """The bias's initialiser that goes with a kernel's."""
    if init != "uniform":
        return jax.nn.initializers.zeros
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


class Linear(nn.Module):
    """`x[batch, in] -> [batch, features]`. deviation: initial noise deviation times sqrt(in); 0 is a plain layer.

    parametrization: of the kernel, see `plasticity.networks.kernels`; that of the deviations is plain.

    noise: a key, from which each layer derives its own by its name; without one the mean weights are applied.
    """

    features: int
    kernel_init: str | Sparse = "lecun"
    deviation: float = 0.0
    bias: bool = True
    parametrization: str = "plain"

    @nn.compact
    def __call__(self, x: jax.Array, noise: jax.Array | None = None) -> jax.Array:
        fan_in, bound = x.shape[-1], x.shape[-1] ** -0.5
        init = self.kernel_init
        if self.deviation and isinstance(init, str):
            init = "uniform"  # the noisy layer's source draws its means so
        shape = (fan_in, self.features)
        kernel = self.param("kernel", kernel_initializer(init), shape)
        bias = self.param("bias", bias_initializer(init, fan_in), (self.features,)) if self.bias else None
        y = matmul(x, applied(self, self.parametrization, kernel).astype(x.dtype))
        if bias is not None:
            y = y + bias.astype(x.dtype)
        if self.deviation:
            constant = jax.nn.initializers.constant(self.deviation * bound)
            kernel_deviation = self.param("noise_kernel", constant, shape).astype(x.dtype)
            bias_deviation = self.param("noise_bias", constant, (self.features,)).astype(x.dtype) if self.bias else 0.0
            if noise is not None:
                key = named(noise, self.name or "linear")
                e_in = _scaled(named(key, "in"), fan_in).astype(x.dtype)
                e_out = _scaled(named(key, "out"), self.features).astype(x.dtype)
                y = y + (matmul(x * e_in, kernel_deviation) + bias_deviation) * e_out
        return y
