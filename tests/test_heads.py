"""Output heads against hand-worked numbers and independent rewrites."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plasticity.heads import Categorical, HLGauss, Regression, Softmax, TwoHot, r2_score

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


# A Gaussian over the bins -------------------------------------------------------------------------------------------


@given(
    st.floats(-100, 100, width=32),
    st.floats(0.125, 100, width=32),
    st.sampled_from([2, 11, 101]),
    st.floats(0.25, 3),
    st.lists(st.floats(-0.5, 1.5, width=32), min_size=4, max_size=4),
)
def test_hl_gauss_against_scipy(low, span, bins, spread, shares):
    """Mass of a normal around the target between the bins' edges, renormalised; targets beyond are clipped."""
    norm = pytest.importorskip("scipy.stats").norm
    head = HLGauss(bins, low, low + span, spread)
    y = low + span * np.asarray(shares)
    code = np.asarray(head.encode(jnp.asarray(y, jnp.float32)))
    width = span / (bins - 1)
    edges = low - width / 2 + width * np.arange(bins + 1)
    clipped = np.clip(y, low, low + span)[:, None]
    expected = np.diff(norm.cdf(edges, clipped, spread * width), axis=-1)
    expected /= expected.sum(-1, keepdims=True)
    assert code.shape == (4, bins)
    # The target's position is rounded relative to the ends of the support.
    np.testing.assert_allclose(code, expected, atol=1e-5 + 1e-6 * (abs(low) + span) / (width * spread))
    np.testing.assert_allclose(code.sum(-1), 1, rtol=1e-5)


GAUSS = HLGauss(11, -5.0, 5.0)


def test_hl_gauss_by_hand():
    """Bins of width 1 and a deviation of .75: .5 of a bin on either side of a centre is 2/3 of a deviation."""
    code = np.asarray(GAUSS.encode(jnp.array([0.0])))[0]
    np.testing.assert_allclose(code[5], 0.4950149, rtol=1e-5)  # 2 Phi(2/3) - 1
    np.testing.assert_allclose(code[[4, 6]], 0.2297424, rtol=1e-4)  # Phi(2) - Phi(2/3)
    np.testing.assert_allclose(code[:5], code[:5:-1], atol=1e-6)


def test_the_mean_of_a_gaussian_code_is_close_to_the_target_inside_the_support():
    """Exact but for what is cut off: at the ends half of the mass is, and the mean moves inwards."""
    y = jnp.linspace(-3.0, 3.0, 41)
    np.testing.assert_allclose(GAUSS.encode(y) @ GAUSS.centres(), y, atol=0.01)
    ends = GAUSS.encode(jnp.array([-5.0, 5.0, -9.0, 9.0])) @ GAUSS.centres()
    np.testing.assert_allclose(ends, [ends[0], -ends[0], ends[0], -ends[0]], rtol=1e-5)
    assert -5 < ends[0] < -4.5


def test_neighbouring_bins_share_a_gaussian_target_unlike_a_two_hot_one():
    y = jnp.array([0.0, 0.3, 4.9])
    assert np.all(np.sum(GAUSS.encode(y) > 0.01, axis=-1) >= 3)
    # A narrow Gaussian is a one-hot code of the nearest bin.
    np.testing.assert_allclose(HLGauss(11, -5.0, 5.0, 0.01).encode(y), np.eye(11)[[5, 5, 10]], atol=1e-6)


# Distributions of returns -------------------------------------------------------------------------------------------

C51 = Categorical(5, -2.0, 2.0)


def algorithm_1(atoms, probabilities, low, high, bins):
    """Projection of one distribution, with floor and ceil, from the paper's listing; b on a bin goes there whole."""
    width, m = (high - low) / (bins - 1), np.zeros(bins)
    for z, p in zip(atoms, probabilities, strict=True):
        b = min((min(max(z, low), high) - low) / width, bins - 1)
        below, above = int(np.floor(b)), int(np.ceil(b))
        if below == above:
            m[below] += p
        else:
            m[below] += p * (above - b)
            m[above] += p * (b - below)
    return m


@given(
    st.sampled_from([2, 11, 51]),
    st.sampled_from([1, 51]),
    st.floats(0.5, 20),
    st.floats(-30, 30),
    st.floats(0, 1),
    st.integers(0, 10_000),
)
def test_projection_against_the_papers_loop(bins, n, high, reward, discount, seed):
    rng = np.random.default_rng(seed)
    head = Categorical(bins, -high, high)
    probabilities = rng.dirichlet(np.ones(n), size=3).astype(np.float32)
    atoms = (reward + discount * np.sort(rng.uniform(-high, high, (3, n)))).astype(np.float32)
    found = np.asarray(head.project(jnp.asarray(atoms), jnp.asarray(probabilities)))
    expected = [algorithm_1(a, p, -high, high, bins) for a, p in zip(atoms, probabilities, strict=True)]
    np.testing.assert_allclose(found, expected, atol=2e-4)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-4)
    assert np.all(found >= 0)
    mean = (probabilities * np.clip(atoms, -high, high)).sum(-1)
    np.testing.assert_allclose(found @ np.asarray(head.centres()), mean, atol=1e-4 * high)


def test_projection_by_hand():
    """Atoms on bins stay, between bins they are shared, beyond the support they go to its ends."""
    p = jnp.array([0.1, 0.2, 0.3, 0.15, 0.25])
    np.testing.assert_array_equal(C51.project(C51.centres(), p), p)
    np.testing.assert_allclose(C51.project(C51.centres() + 1, p), [0, 0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    np.testing.assert_allclose(C51.project(C51.centres() + 99, p), [0, 0, 0, 0, 1], rtol=1e-6)
    np.testing.assert_allclose(C51.project(jnp.array([0.25]), jnp.array([1.0])), [0, 0, 0.75, 0.25, 0])
    # A discount of 0 puts everything on the reward.
    np.testing.assert_allclose(C51.project(-0.5 + 0 * C51.centres(), p), [0, 0.5, 0.5, 0, 0], rtol=1e-6)


def test_bins_of_the_networks_of_atari_are_hit_exactly():
    """51 atoms on [-10, 10]: every bin, projected onto the support, is itself but for the rounding of its position."""
    head = Categorical(51, -10.0, 10.0)
    np.testing.assert_allclose(head.project(head.centres()[:, None], jnp.ones((51, 1))), np.eye(51), atol=1e-5)


def test_the_divergence_has_the_gradient_of_the_cross_entropy():
    """They differ by the code's entropy, which does not depend on the outputs."""
    special = pytest.importorskip("scipy.special")
    outputs = jnp.asarray(RNG.normal(0, 3, (3, 5)), jnp.float32)
    for code in (HEAD.encode(jnp.array([-2.0, 0.25, 9.0])), HLGauss(5, -2.0, 2.0).encode(jnp.array([-2.0, 0.3, 9.0]))):
        value, gradient = jax.value_and_grad(lambda o, code=code: C51.divergence(o, code).sum())(outputs)
        entropy_free = jax.grad(lambda o, code=code: -jnp.sum(code * jax.nn.log_softmax(o)))(outputs)
        np.testing.assert_allclose(gradient, entropy_free, atol=1e-6)
        np.testing.assert_allclose(gradient, jax.nn.softmax(outputs) - code, atol=1e-6)
        q = special.softmax(np.asarray(outputs, np.float64), axis=-1)
        np.testing.assert_allclose(value, special.rel_entr(np.asarray(code), q).sum(), rtol=1e-5)


def test_a_distribution_predicts_its_mean_and_encodes_no_numbers():
    np.testing.assert_allclose(C51.predict(jnp.log(jnp.array([[0.1, 0.2, 0.3, 0.15, 0.25]]))), [0.25], rtol=1e-5)
    with pytest.raises(NotImplementedError):
        C51.loss(jnp.zeros((1, 5)), jnp.zeros(1))
