"""2-D convolution in two forms that give the same numbers: XLA's own, and a matrix product.

XLA's convolution is 5 to 7 times slower inside `scan` than outside on a CPU (jax issue 12868), and under `vmap` over
networks it becomes a grouped convolution. The matrix form first folds each stride x stride square of pixels into
channels, so that an 8 x 8 kernel with stride 4 is a 2 x 2 kernel with stride 1, and multiplies the few shifted copies
that are left, laid side by side, with the folded kernel.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from plasticity.networks.linear import matmul

Form = Literal["auto", "lax", "matmul"]


def conv(x: jax.Array, kernel: jax.Array, stride: int, padding: str, form: str = "auto") -> jax.Array:
    """`x[batch, height, width, in]` with `kernel[k, k, in, out]`; padding `SAME` or `VALID`.

    form: `lax`, `matmul`, or `auto`, which is matmul on a CPU and lax elsewhere.
    """
    if form == "auto":
        form = "matmul" if jax.default_backend() == "cpu" else "lax"
    if form == "lax":
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    return _matmul_form(x, kernel, stride, padding)


def _matmul_form(x: jax.Array, kernel: jax.Array, stride: int, padding: str) -> jax.Array:
    size, _, channels, features = kernel.shape
    taps = -(-size // stride)  # folded kernel size; a kernel that stride does not divide is padded with zeros
    kernel = jnp.pad(kernel, [(0, taps * stride - size)] * 2 + [(0, 0)] * 2)
    (top, rows), (left, columns) = (_extent(n, size, stride, padding) for n in x.shape[1:3])
    height, width = ((n + taps - 1) * stride for n in (rows, columns))  # of the input that the outputs read
    # A negative pad cuts off what no output reads.
    pads = [(top, height - top - x.shape[1], 0), (left, width - left - x.shape[2], 0)]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
    x = _fold(x, stride)
    shifted = [x[:, i : i + rows, j : j + columns] for i in range(taps) for j in range(taps)]
    patches = shifted[0] if len(shifted) == 1 else jnp.concatenate(shifted, axis=-1)
    weights = kernel.reshape(taps, stride, taps, stride, channels, features).transpose(0, 2, 1, 3, 4, 5)
    weights = weights.reshape(-1, features)
    # With the gradient in the kernel's own layout, as for dense layers: a quarter of the time of a training step.
    y = matmul(patches.reshape(-1, weights.shape[0]), weights)
    return y.reshape(*patches.shape[:-1], features)


def _extent(n: int, size: int, stride: int, padding: str) -> tuple[int, int]:
    """Pixels of padding before an axis of n, and number of outputs along it, as XLA defines them."""
    if padding == "VALID":
        return 0, (n - size) // stride + 1
    outputs = -(-n // stride)
    return max((outputs - 1) * stride + size - n, 0) // 2, outputs


def _fold(x: jax.Array, stride: int) -> jax.Array:
    """Space to depth: `[b, h s, w s, c]` to `[b, h, w, s s c]`."""
    if stride == 1:
        return x
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // stride, stride, width // stride, stride, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // stride, width // stride, -1)
