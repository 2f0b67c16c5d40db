"""Max pooling without overlap, as maxima of shifted slices.

`reduce_window` and its gradient, which searches each window again, take 8 to 10 times as long on a CPU. Of equal
entries in a window each pair shares the gradient in halves, where torch gives all of it to the first.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from plasticity.errors import UserError


def max_pool(x: jax.Array, window: int) -> jax.Array:
    """`x[batch, height, width, channels]` to maxima of windows of `window` x `window` pixels side by side.

    Pixels behind the last whole window are left out, as in torch. Raises `UserError` where there is no whole window.
    """
    if window == 1:
        return x
    batch, height, width, channels = x.shape
    rows, columns = height // window, width // window
    if not rows * columns:
        small = f"{height} x {width}, smaller than a window of {window} x {window}"
        raise UserError(f"the images are too small: max pooling reads {small}")
    x = x[:, : rows * window, : columns * window].reshape(batch, rows, window, columns, window, channels)
    return functools.reduce(jnp.maximum, [x[:, :, i, :, j] for i in range(window) for j in range(window)])
