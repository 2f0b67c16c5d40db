"""Output heads against hand-worked numbers and independent rewrites."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plasticity.heads import Regression, Softmax, TwoHot, r2_score

RNG = np.random.default_rng(0)


def test_softmax_is_the_cross_entropy_in_nats():
    special = pytest.importorskip("scipy.special")
    outputs, y = RNG.normal(0, 5, (20, 7)).astype(np.float32), RNG.integers(0, 7, 20)
    expected = -special.log_softmax(outputs.astype(np.float64), axis=-1)[np.arange(20), y]
    head = Softmax(7)
    np.testing.assert_allclose(head.loss(jnp.asarray(outputs), jnp.asarray(y)), expected, rtol=2e-5, atol=1e-5)
    np.testing.assert_array_equal(head.predict(jnp.asarray(outputs)), outputs.argmax(-1))


def test_softmax_by_hand():
    head = Softmax(2)
    np.testing.assert_allclose(head.loss(jnp.zeros((1, 2)), jnp.array([1])), [np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(head.loss(jnp.array([[0.0, 1000.0]]), jnp.array([1])), [0.0])
    assert float(head.score(jnp.array([1, 0, 1, 1]), jnp.array([1, 1, 1, 1]))) == 0.75


def test_regression_is_half_the_squared_error():
    head = Regression(-1, 1)
    outputs, y = jnp.array([[1.0], [2.0]]), jnp.array([0.0, 5.0])
    assert head.loss(outputs, y).tolist() == [0.5, 4.5]
    assert head.predict(outputs).tolist() == [1.0, 2.0]


def test_r2_against_a_rewrite():
    y = RNG.normal(3, 2, 50)
    for noise in (0.0, 0.5, 3.0):
        predictions = y + noise * RNG.normal(size=50)
        expected = max(0, 1 - ((predictions - y) ** 2).sum() / ((y - y.mean()) ** 2).sum())
        np.testing.assert_allclose(r2_score(jnp.asarray(predictions), jnp.asarray(y)), expected, rtol=1e-4, atol=1e-6)


def test_r2_of_the_mean_is_0_of_the_targets_1_and_of_constant_targets_0():
    y = jnp.array([1.0, 2.0, 3.0])
    assert float(r2_score(jnp.full(3, 2.0), y)) == 0
    assert float(r2_score(y, y)) == 1
    assert float(r2_score(10 * y, y)) == 0
    assert float(r2_score(jnp.ones(3), jnp.ones(3))) == 0
    assert float(r2_score(1000 * y + 5, 1000 * y + 5)) == 1
    assert np.isnan(r2_score(y.at[0].set(jnp.nan), y))  # a diverged run must not look like chance


HEAD = TwoHot(5, -2.0, 2.0)


def test_two_hot_by_hand():
    assert HEAD.centres().tolist() == [-2, -1, 0, 1, 2]
    code = HEAD.encode(jnp.array([-2.0, 0.25, 1.0, 2.0]))
    assert code.tolist() == [[1, 0, 0, 0, 0], [0, 0, 0.75, 0.25, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]


def test_two_hot_clips_what_is_beyond_its_support():
    assert HEAD.encode(jnp.array([-7.0, 7.0])).tolist() == [[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]


@given(
    st.floats(-1e3, 1e3, width=32),
    st.floats(0.125, 1e3, width=32),
    st.integers(2, 101),
    st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4),
)
def test_the_mean_of_the_code_is_the_target(low, span, bins, shares):
    head = TwoHot(bins, low, low + span)
    y = jnp.float32(low) + jnp.float32(span) * jnp.asarray(shares)
    code = head.encode(y)
    assert code.shape == (4, bins)
    assert np.all(np.sum(code > 0, axis=-1) <= 2)
    np.testing.assert_allclose(code.sum(-1), 1, rtol=1e-4)
    # Positions are rounded relative to the ends of the support.
    np.testing.assert_allclose(code @ head.centres(), y, atol=1e-4 * (abs(low) + span))


def test_two_hot_loss_is_0_at_a_perfect_fit_and_the_divergence_elsewhere():
    special = pytest.importorskip("scipy.special")
    y = jnp.array([0.25, 2.0])
    perfect = jnp.log(HEAD.encode(y) + 1e-30)
    np.testing.assert_allclose(HEAD.loss(perfect, y), 0, atol=1e-6)
    np.testing.assert_allclose(HEAD.predict(perfect), y, rtol=1e-6)
    outputs = RNG.normal(size=(2, 5)).astype(np.float32)
    code, q = np.asarray(HEAD.encode(y)), special.softmax(outputs.astype(np.float64), axis=-1)
    np.testing.assert_allclose(HEAD.loss(jnp.asarray(outputs), y), special.rel_entr(code, q).sum(-1), rtol=1e-5)


def test_two_hot_gradient_is_that_of_cross_entropy_and_finite():
    y = jnp.array([-2.0, 0.25, 99.0])
    outputs = jnp.asarray(RNG.normal(0, 50, (3, 5)), jnp.float32)
    gradient = jax.grad(lambda o: HEAD.loss(o, y).sum())(outputs)
    np.testing.assert_allclose(gradient, jax.nn.softmax(outputs) - HEAD.encode(y), atol=1e-6)
    assert np.all(np.isfinite(gradient))


def test_two_hot_with_a_traced_support_is_the_same():
    y, outputs = jnp.array([0.3, 1.9]), jnp.asarray(RNG.normal(size=(2, 5)), jnp.float32)
    traced = jax.jit(lambda low, high: TwoHot(5, low, high).loss(outputs, y))(-2.0, 2.0)
    np.testing.assert_allclose(traced, HEAD.loss(outputs, y), rtol=1e-6)
