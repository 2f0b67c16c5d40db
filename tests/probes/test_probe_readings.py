"""Measures of plasticity on numbers: by hand, against NumPy, NaN, jit and vmap, bad input."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from plasticity import probes
from plasticity.diagnostics import standalones
from plasticity.errors import UserError

# --- per-sample plasticity ------------------------------------------------------------------------------------------


def test_sample_plasticity_by_hand():
    before = [2.0, 2.0, 2.0, 2.0, 0.0, 1e-9]
    after = [2.0, 0.5, 0.0, 9.0, 0.0, 0.0]
    np.testing.assert_allclose(probes.sample_plasticity(np.array(before), np.array(after)), [0, 0.75, 1, 0, 1, 1])
    assert float(probes.sample_plasticity(jnp.array(0.0), jnp.array(1e-9))) == pytest.approx(0.9)
    assert float(probes.sample_plasticity(jnp.array(1), jnp.array(0))) == 1  # whole numbers
    assert float(probes.sample_plasticity(np.array(1.0), np.array(0.9), floor=2.0)) == pytest.approx(0.55)


def test_sample_plasticity_of_losses_that_are_not_finite_is_nan():
    bad = np.array([np.nan, 1, np.inf, 1])
    assert np.isnan(probes.sample_plasticity(bad, bad[::-1])).all()


def test_sample_plasticity_needs_the_same_samples():
    with pytest.raises(UserError, match="same samples"):
        probes.sample_plasticity(np.ones(3), np.ones(2))


# --- steps to a threshold -------------------------------------------------------------------------------------------

STEPS = np.array([0, 10, 20, 40])


def test_steps_to_threshold_by_hand():
    scores = np.array(
        [
            [0.1, 0.5, 0.9, 0.2],  # first time counts, not the last
            [0.9, 0.9, 0.9, 0.9],
            [0.1, 0.2, 0.3, 0.4],  # never
            [0.1, np.nan, 0.9, np.nan],  # a gap
            [np.nan] * 4,
            [0.0, 0.0, 0.0, 0.9],
        ]
    )
    found = probes.steps_to_threshold(scores, STEPS, 0.9)
    np.testing.assert_array_equal(found.steps, [20, 0, 40, 20, 40, 40])
    np.testing.assert_array_equal(found.censored, [0, 0, 1, 0, 1, 0])
    below = probes.steps_to_threshold(-scores, STEPS, -0.9, below=True)
    np.testing.assert_array_equal(below.steps, found.steps)
    one = probes.steps_to_threshold(np.array([0.2]), np.array([5]), 0.9)
    assert (int(one.steps), bool(one.censored)) == (5, True)


def test_steps_must_fit_the_scores():
    for scores, steps in [(np.ones(3), np.ones(2)), (np.float32(1), np.ones(1)), (np.ones((2, 0)), np.ones(0))]:
        with pytest.raises(UserError, match="must fit"):
            probes.steps_to_threshold(scores, steps, 0.5)


def test_restricted_mean_by_hand():
    def mean(steps, censored, limit):
        return [float(v) for v in probes.restricted_mean_steps(np.array(steps), np.array(censored), limit)]

    assert mean([2, 4, 6], [0, 0, 0], 10)[0] == pytest.approx(4)
    assert mean([2, 4, 10], [0, 0, 1], 10)[::2] == pytest.approx([16 / 3, 1 / 3])
    # Nobody is known to be slower than 4: survival 1 to 2, then 2/3 (the censored one left at 3), then 0 from 4 on.
    assert mean([2, 3, 4], [0, 1, 0], 10)[0] == pytest.approx(2 + 2 / 3 * 2)
    # Arrivals beyond the limit count as the limit.
    assert mean([2, 40], [0, 0], 10) == pytest.approx([6, np.sqrt(8**2 / 4 / 2), 0.5])
    assert mean([5, 5, 5], [0, 0, 0], 10)[:2] == pytest.approx([5, 0])
    # The last run was lost before the limit.
    assert np.isnan(mean([2, 4], [0, 1], 10)[0])
    assert mean([2, 4], [0, 1], 4)[0] == pytest.approx(3)
    assert np.isnan(mean([2, np.nan], [0, 0], 10)[:2]).all()
    assert mean([3], [0], 10)[:2] == pytest.approx([3, 0])
    assert mean([12], [1], 10)[::2] == pytest.approx([10, 1])


restricted_mean = jax.jit(probes.restricted_mean_steps)


def kaplan_meier(steps, censored, limit):
    """The area under the product-limit estimate, as in a textbook: over distinct times of arrival."""
    area, survival, last = 0.0, 1.0, 0.0
    for t in sorted({s for s, c in zip(steps, censored, strict=True) if not c and s <= limit}):
        area, last = area + survival * (t - last), t
        arrived = sum(s == t and not c for s, c in zip(steps, censored, strict=True))
        survival *= 1 - arrived / sum(s >= t for s in steps)
    return area + survival * (limit - last)


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=7, max_size=7), st.integers(1, 9))
@settings(max_examples=30)
def test_restricted_mean_is_the_textbooks(runs, limit):
    runs = [*runs, (limit, True)]
    steps, censored = (np.array(column) for column in zip(*runs, strict=True))
    found = restricted_mean(steps, censored, limit)
    assert float(found.mean) == pytest.approx(kaplan_meier(steps, censored, limit), rel=1e-5)


def test_restricted_mean_error_without_censoring_is_that_of_a_mean():
    runs = 8
    steps = np.random.default_rng(0).choice(1000, runs, replace=False)
    found = probes.restricted_mean_steps(steps, np.zeros(runs, bool), 1000)
    # Greenwood's variance divides by n where the usual one divides by n - 1.
    assert float(found.error) == pytest.approx(steps.std() / np.sqrt(runs), rel=1e-4)


def test_restricted_mean_needs_one_row_of_runs():
    for steps, censored in [(np.ones((2, 2)), np.ones((2, 2))), (np.ones(2), np.ones(3)), (np.ones(0), np.ones(0))]:
        with pytest.raises(UserError, match="runs"):
            probes.restricted_mean_steps(steps, censored, 10)


# --- the warm-start gap of given scores -----------------------------------------------------------------------------


def test_warm_start_gap_by_hand():
    found = probes.warm_start_gap(np.array([0.5, 0.7]), np.array([0.6, 0.9]))
    assert [float(v) for v in found] == pytest.approx([-0.15, 0.05])
    gap, error = probes.warm_start_gap(0.5, 0.75)
    assert float(gap) == -0.25
    assert np.isnan(error)
    assert np.isnan(probes.warm_start_gap(np.array([0.5, np.nan]), np.ones(2)).gap)
    for a, b in [(np.ones(2), np.ones(3)), (np.ones((2, 2)), np.ones((2, 2))), (np.ones(0), np.ones(0))]:
        with pytest.raises(UserError, match="paired by seed"):
            probes.warm_start_gap(a, b)


# --- churn ----------------------------------------------------------------------------------------------------------

CHURN = (probes.policy_churn, probes.value_churn, probes.output_churn, probes.policy_divergence)
BEFORE, AFTER = np.array([[1.0, 0.0], [2.0, 2.0], [0.0, 5.0]]), np.array([[0.0, 3.0], [2.0, 1.0], [0.0, 4.0]])


def test_churn_by_hand():
    assert float(probes.policy_churn(BEFORE, AFTER)) == pytest.approx(1 / 3)
    assert float(probes.value_churn(BEFORE, AFTER)) == pytest.approx((2 + 0 + 1) / 3)
    assert float(probes.output_churn(BEFORE, AFTER)) == pytest.approx((1 + 3 + 0 + 1 + 0 + 1) / 6)
    half = np.log([[0.5, 0.5]])
    assert float(probes.policy_divergence(half, np.log([[0.25, 0.75]]))) == pytest.approx(np.log(4 / 3) / 2)


values = arrays(np.float32, (4, 3), elements=st.floats(-10, 10, width=32, allow_subnormal=False))


@given(values, values)
@settings(max_examples=30)
def test_churn_is_that_of_numpy(a, b):
    p, q = (np.exp(x.astype(float)) / np.exp(x.astype(float)).sum(1, keepdims=True) for x in (a, b))
    expected = [
        np.mean(a.argmax(1) != b.argmax(1)),
        np.abs(a.max(1) - b.max(1)).mean(),
        np.abs(a - b).mean(),
        (p * np.log(p / q)).sum(1).mean(),
    ]
    np.testing.assert_allclose([f(a, b) for f in CHURN], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("churn", CHURN)
def test_churn_of_nothing_is_zero_and_of_nan_is_nan(churn):
    assert float(churn(BEFORE, BEFORE)) == 0
    assert np.isnan(churn(BEFORE, np.where(AFTER == 4, np.nan, AFTER)))
    assert np.isnan(churn(np.where(BEFORE == 5, np.inf, BEFORE), AFTER))
    assert np.isfinite(churn(BEFORE.astype(int), AFTER.astype(int)))
    for a, b in [(np.ones(3), np.ones(3)), (np.ones((2, 3)), np.ones((3, 2))), (np.ones((0, 2)), np.ones((0, 2)))]:
        with pytest.raises(UserError, match="one shape"):
            churn(a, b)


# --- all ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        *((churn, (BEFORE, AFTER)) for churn in CHURN),
        (probes.sample_plasticity, (BEFORE, AFTER)),
        (probes.warm_start_gap, (BEFORE[0], AFTER[0])),
        (lambda s: probes.steps_to_threshold(s, STEPS[:2], 1.5), (AFTER,)),
        (lambda s: probes.restricted_mean_steps(s, s > 2, 3.0), (AFTER[0],)),
    ],
)
def test_under_jit_and_vmap_each_is_what_it_is_alone(function, arguments):
    alone = function(*arguments)
    stacked = [np.stack([a, a + 1]) for a in arguments]
    together = jax.jit(jax.vmap(function))(*stacked)
    other = function(*(a + 1 for a in arguments))
    for a, b, both in zip(*(jax.tree.leaves(t) for t in (alone, other, together)), strict=True):
        np.testing.assert_allclose(both, np.stack([a, b]), rtol=1e-6)


def test_all_are_listed():
    names = {"trainability", "target_fitting_capacity", "random_labels", "warm_start_gap", "sample_plasticity"}
    names |= {"steps_to_threshold", "policy_churn", "value_churn", "output_churn", "policy_divergence"}
    assert names <= set(standalones())
    assert standalones()["trainability"].address == "plasticity.probes.trainability"
