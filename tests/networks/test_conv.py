"""The two forms of the convolution against each other and against a loop over outputs."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.networks.conv import conv

RNG = np.random.default_rng(0)
CHANNELS, FEATURES, BATCH = 2, 3, 2
# Kernel size and stride: dividing and not, stride beyond the kernel, and the networks' own.
SHAPES = [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 1), (3, 2), (4, 2), (4, 3), (5, 2), (8, 4)]
SIZES = [(8, 8), (9, 11), (13, 10)]
PADDINGS = ("SAME", "VALID")
both = pytest.mark.parametrize("padding", PADDINGS)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def outputs_and_margin(n, size, stride, padding):
    """Number of outputs along an axis of n, and pixels of padding before it (SAME: the odd one behind)."""
    if padding == "VALID":
        return len(range(0, n - size + 1, stride)), 0
    count = len(range(0, n, stride))
    return count, max((count - 1) * stride + size - n, 0) // 2


def loop(x, kernel, stride, padding):
    """One output pixel after the other, in float64."""
    x, kernel = x.astype(np.float64), kernel.astype(np.float64)
    batch, height, width, _ = x.shape
    size, _, _, features = kernel.shape
    rows, top = outputs_and_margin(height, size, stride, padding)
    columns, left = outputs_and_margin(width, size, stride, padding)
    y = np.zeros((batch, rows, columns, features))
    for i, j, a, b in itertools.product(range(rows), range(columns), range(size), range(size)):
        r, c = i * stride + a - top, j * stride + b - left
        if 0 <= r < height and 0 <= c < width:
            y[:, i, j] += x[:, r, c] @ kernel[a, b]
    return y


@both
@pytest.mark.parametrize(("size", "stride"), SHAPES)
def test_both_forms_against_a_loop(size, stride, padding):
    kernel = normal(size, size, CHANNELS, FEATURES)
    images = [normal(BATCH, height, width, CHANNELS) for height, width in SIZES]
    both_forms = jax.jit(
        lambda images: [[conv(x, kernel, stride, padding, f) for f in ("matmul", "lax")] for x in images]
    )
    for x, found in zip(images, both_forms(images), strict=True):
        expected = loop(x, kernel, stride, padding)
        for y in found:
            assert y.shape == expected.shape
            np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


@both
@pytest.mark.parametrize(("size", "stride"), [(2, 3), (3, 1), (3, 2), (4, 2), (8, 4)])
def test_gradients_of_both_forms_agree(size, stride, padding):
    x, kernel = normal(BATCH, 11, 9, CHANNELS), normal(size, size, CHANNELS, FEATURES)
    weights = normal(*loop(x, kernel, stride, padding).shape)

    @partial(jax.jit, static_argnums=2)
    def gradients(x, kernel, form):
        return jax.grad(lambda *a: jnp.sum(weights * jnp.sin(conv(*a, stride, padding, form))), (0, 1))(x, kernel)

    mine, theirs = (gradients(x, kernel, form) for form in ("matmul", "lax"))
    assert [g.shape for g in mine] == [x.shape, kernel.shape]
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_a_delta_kernel_picks_the_pixel_under_its_tap():
    """Which tap of the kernel reads which pixel, exactly: 5 x 5 ramp, 3 x 3 kernel, stride 2."""
    x = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1)
    for i, j in itertools.product(range(3), range(3)):
        kernel = np.zeros((3, 3, 1, 1), np.float32)
        kernel[i, j] = 1
        found = conv(jnp.asarray(x), jnp.asarray(kernel), 2, "VALID", "matmul")
        np.testing.assert_array_equal(found[0, ..., 0], x[0, i : i + 3 : 2, j : j + 3 : 2, 0])
        padded = np.pad(x[0, ..., 0], 1)
        found = conv(jnp.asarray(x), jnp.asarray(kernel), 2, "SAME", "matmul")
        np.testing.assert_array_equal(found[0, ..., 0], padded[i : i + 5 : 2, j : j + 5 : 2])


def test_on_a_cpu_auto_is_the_matrix_product(monkeypatch):
    x, kernel = jnp.asarray(normal(1, 6, 6, 2)), jnp.asarray(normal(3, 3, 2, 2))

    def primitives():
        return str(jax.make_jaxpr(lambda *a: conv(*a, 1, "SAME"))(x, kernel))

    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert "dot_general" in primitives()
    assert "conv_general_dilated" not in primitives()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "conv_general_dilated" in primitives()


@both
def test_bfloat16_stays_bfloat16_and_is_close(padding):
    """To the type's 8 bits, relative to the size of the terms: the forms add up in different orders."""
    x, kernel = normal(BATCH, 9, 9, 4), normal(4, 4, 4, FEATURES)
    exact = loop(x, kernel, 2, padding)
    for form in ("matmul", "lax"):
        found = conv(jnp.asarray(x, jnp.bfloat16), jnp.asarray(kernel, jnp.bfloat16), 2, padding, form)
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(found, np.float64), exact, atol=0.02 * np.abs(exact).max())


def test_inside_scan_and_mapped_over_kernels():
    """Where XLA's own form is slow or becomes a grouped convolution."""
    x, kernels = normal(3, BATCH, 9, 9, CHANNELS), normal(4, 3, 3, CHANNELS, FEATURES)
    expected = np.stack([[loop(a, k, 2, "SAME") for k in kernels] for a in x])

    def mapped(a):
        return jax.vmap(lambda k: conv(a, k, 2, "SAME", "matmul"))(kernels)

    _, found = jax.jit(lambda x: jax.lax.scan(lambda carry, a: (carry, mapped(a)), 0, x))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    gradient = jax.vmap(jax.grad(lambda k: jnp.sum(jnp.square(conv(x[0], k, 2, "SAME", "matmul")))))
    alone = [jax.grad(lambda k: jnp.sum(jnp.square(conv(x[0], k, 2, "SAME", "lax"))))(k) for k in kernels]
    np.testing.assert_allclose(gradient(jnp.asarray(kernels)), np.stack(alone), rtol=1e-4, atol=1e-3)


def test_over_images_and_kernels_together():
    """A lane each: its own images and its own kernel, as in a group of runs."""
    x, kernels = normal(3, BATCH, 6, 7, CHANNELS), normal(3, 2, 2, CHANNELS, FEATURES)
    found = jax.vmap(lambda a, k: conv(a, k, 2, "VALID", "matmul"))(x, kernels)
    for lane in range(3):
        np.testing.assert_allclose(found[lane], loop(x[lane], kernels[lane], 2, "VALID"), rtol=1e-4, atol=1e-4)
