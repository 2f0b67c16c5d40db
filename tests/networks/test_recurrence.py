"""The linear recurrence in both forms: against a loop, its gradient, extremes, and curvature through it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.networks.recurrence import recurrence

RNG = np.random.default_rng(0)
both = pytest.mark.parametrize("form", ["scan", "associative"])


def loop(a, b):
    """One position after the other, in the type of a and b."""
    h = [b[:, 0]]
    for t in range(1, a.shape[1]):
        h.append(a[:, t] * h[-1] + b[:, t])
    return np.stack(h, 1) if isinstance(a, np.ndarray) else jnp.stack(h, 1)


def drawn(*shape):
    return RNG.uniform(0.3, 1.0, shape).astype(np.float32), RNG.normal(size=shape).astype(np.float32)


@both
@pytest.mark.parametrize("positions", [1, 2, 7, 64])
def test_against_a_loop(form, positions):
    a, b = drawn(2, positions, 3)
    expected = loop(a.astype(np.float64), b.astype(np.float64))
    np.testing.assert_allclose(recurrence(a, b, form), expected, rtol=1e-4, atol=1e-5)


@both
def test_by_hand(form):
    """A half and twos: 2, 3, 3.5; nothing kept: b itself; all kept: running sums."""
    twos = jnp.full((1, 3, 1), 2.0)
    for a, expected in ((0.5, [2, 3, 3.5]), (0.0, [2, 2, 2]), (1.0, [2, 4, 6])):
        np.testing.assert_array_equal(recurrence(jnp.full((1, 3, 1), a), twos, form)[0, :, 0], expected)


@both
def test_the_gradient_is_the_loops(form):
    a, b = drawn(2, 6, 3)
    weights = RNG.normal(size=a.shape)

    def gradient(h):
        return jax.jit(jax.grad(lambda a, b: jnp.sum(weights * jnp.sin(h(a, b))), (0, 1)))(jnp.asarray(a), b)

    for mine, theirs in zip(gradient(lambda a, b: recurrence(a, b, form)), gradient(loop), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


@both
def test_the_gradient_can_be_differentiated_forwards(form):
    """As the Hessian of `plasticity.curvature` does it."""
    a, b = drawn(1, 4, 2)
    direction = RNG.normal(size=a.shape).astype(np.float32)

    def product(h):
        grad = jax.grad(lambda a: jnp.sum(jnp.square(h(a, b))))
        return jax.jvp(grad, (jnp.asarray(a),), (direction,))[1]

    np.testing.assert_allclose(product(lambda a, b: recurrence(a, b, form)), product(loop), rtol=1e-4, atol=1e-4)


def test_on_a_cpu_auto_is_the_scan(monkeypatch):
    a, b = drawn(1, 8, 2)

    def program():
        return str(jax.make_jaxpr(lambda a, b: recurrence(a, b))(a, b))

    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert "scan" in program()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "scan[" not in program()


@both
def test_inside_scan_and_under_vmap(form):
    a, b = drawn(3, 2, 5, 4)
    expected = np.stack([loop(*lane) for lane in zip(a, b, strict=True)])
    np.testing.assert_allclose(jax.vmap(lambda a, b: recurrence(a, b, form))(a, b), expected, rtol=1e-4, atol=1e-5)
    _, found = jax.jit(lambda a, b: jax.lax.scan(lambda _, at: (None, recurrence(*at, form)), None, (a, b)))(a, b)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
