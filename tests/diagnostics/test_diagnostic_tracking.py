"""Trackers of units: firing ages and utilities by hand, by plain loops, in scans, under vmap, after resets."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from plasticity.diagnostics import tracking
from plasticity.errors import UserError

STEPS, UNITS, BINS = 25, 3, 6


@jax.jit
def tracked(batches):
    """Ages after each batch `[steps, rows, units]`, and the readings at the end."""

    def step(state, batch):
        state = tracking.update_ages(state, batch)
        return state, state.age

    state, ages = jax.lax.scan(step, tracking.start_ages(UNITS, BINS), batches)
    return state, ages, tracking.age_readings(state), tracking.interval_quantile(state, 0.7)


def rewrite(batches):
    """The same by plain loops over units and steps."""
    ages, intervals = np.zeros((STEPS, UNITS), int), [[] for _ in range(UNITS)]
    for unit in range(UNITS):
        last = None
        for step in range(STEPS):
            if any(value > 0 for value in batches[step, :, unit]):
                if last is not None:
                    intervals[unit].append(step - last)
                last = step
            ages[step, unit] = step + 1 if last is None else step - last
    return ages, intervals


# --- ages -----------------------------------------------------------------------------------------------------------


def test_ages_by_hand():
    state = tracking.start_ages(3, bins=4)
    fires = np.array(
        [[1, 0, 0], [0, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 1, 0]]
    )
    for row in fires:
        state = tracking.update_ages(state, np.array([row, row - 1]) * 2.0 - 0.5)
    assert state.age.tolist() == [0, 0, 9]
    assert state.fired.tolist() == [True, True, False]
    # The first fires at 0, 2, 3, 8: intervals of 2, 1 and 5, the last of which is at least 4. The second at 2 and 8.
    assert state.histogram.tolist() == [[1, 1, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    found = tracking.age_readings(state)
    assert float(found["firing_age_mean"]) == 3
    assert float(found["firing_age_max"]) == 9
    assert float(found["never_fired_units"]) == pytest.approx(1 / 3)
    assert float(found["firing_interval_mean"]) == pytest.approx((1 + 2 + 4 + 4) / 4)


def test_before_anything_has_fired():
    found = tracking.age_readings(tracking.start_ages(2))
    assert [float(found[name]) for name in ("firing_age_mean", "firing_age_max", "never_fired_units")] == [0, 0, 1]
    assert np.isnan(found["firing_interval_mean"])


def test_positions_are_rows_and_a_batch_fires_once():
    x = -np.ones((2, 3, 3, 4))
    x[1, 2, 0, 3] = x[0, 0, 0, 3] = 1  # twice in one batch
    state = tracking.update_ages(tracking.start_ages(4), x)
    assert state.age.tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, -np.inf])
def test_what_is_not_positive_does_not_fire(value):
    assert not tracking.update_ages(tracking.start_ages(1), np.array([[value]])).fired[0]
    assert tracking.update_ages(tracking.start_ages(1), np.array([[value], [np.inf]])).fired[0]


def test_interval_quantile_is_that_of_the_histogram():
    # 90 intervals of 1 update, 9 of 2, 1 of 50: 98 % of them are at most 2.
    histogram = np.zeros((3, 64), np.int32)
    histogram[0, [0, 1, 49]] = 90, 9, 1
    histogram[1, 5] = 3
    state = tracking.FiringAges(np.zeros(3, np.int32), np.ones(3, bool), histogram)
    assert tracking.interval_quantile(state).tolist() == [2, 6, np.inf]  # nothing can be said of the third
    assert tracking.interval_quantile(state, 0.9).tolist() == [1, 6, np.inf]
    assert tracking.interval_quantile(state, 0.9901).tolist() == [50, 6, np.inf]
    assert tracking.interval_quantile(state, 1.0).tolist() == [50, 6, np.inf]


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(-2.5, 0.5))
def test_ages_against_plain_loops(seed, mean):
    batches = np.random.default_rng(seed).normal(mean, 1, size=(STEPS, 2, UNITS))
    state, ages, readings, quantile = tracked(batches)
    expected, intervals = rewrite(batches)
    np.testing.assert_array_equal(ages, expected)
    for unit, own in enumerate(intervals):
        counts = np.bincount(np.minimum(own, BINS).astype(int), minlength=BINS + 1)[1:]
        np.testing.assert_array_equal(state.histogram[unit], counts)
        capped = np.sort(np.minimum(own, BINS))
        rank = int(np.ceil(0.7 * len(capped) - 1e-9)) - 1
        assert float(quantile[unit]) == (capped[rank] if len(capped) else np.inf)
    assert float(readings["firing_age_mean"]) == pytest.approx(expected[-1].mean())
    together = np.minimum(np.concatenate(intervals), BINS)
    if len(together):
        assert float(readings["firing_interval_mean"]) == pytest.approx(together.mean(), rel=1e-6)
    else:
        assert np.isnan(readings["firing_interval_mean"])


def test_runs_under_vmap_are_what_they_are_alone_and_units_may_be_permuted():
    batches = np.random.default_rng(0).normal(-1, 1, size=(3, STEPS, 2, UNITS))
    lanes = jax.jit(jax.vmap(tracked))(batches)
    order = np.array([2, 0, 1])
    for i, run in enumerate(batches):
        alone, moved = tracked(run), tracked(run[:, ::-1, order])
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-6), lanes, alone)
        np.testing.assert_array_equal(moved[0].histogram, alone[0].histogram[order])
        np.testing.assert_allclose([*moved[2].values()], [*alone[2].values()], rtol=1e-6)


def test_reset_units_start_afresh_and_the_others_go_on():
    state, *_ = tracked(np.random.default_rng(0).normal(size=(STEPS, 2, UNITS)))
    mask = np.array([False, True, False])
    after = tracking.reset_ages(state, mask)
    fresh = tracking.start_ages(UNITS, BINS)
    for a, b, c in zip(after, state, fresh, strict=True):
        np.testing.assert_array_equal(a[~mask], b[~mask])
        np.testing.assert_array_equal(a[mask], c[mask])


# --- utility --------------------------------------------------------------------------------------------------------


def test_contribution_by_hand():
    post, outgoing = np.array([[1.0, 0, -2], [3, 0, 2]]), np.array([[1.0, -1], [5, 5], [0.5, 0]])
    np.testing.assert_allclose(tracking.contribution(post, outgoing), [4, 0, 1])
    np.testing.assert_allclose(tracking.contribution(post, [outgoing, outgoing]), [8, 0, 2])  # two heads


def test_contribution_of_channels_is_over_the_rows_that_flattening_gives_them():
    h = np.abs(np.random.default_rng(0).normal(size=(4, 2, 2, 3)))  # [batch, 2, 2, channels]
    dense = np.random.default_rng(1).normal(size=(12, 5))
    expected = [np.abs(h[..., c]).mean() * np.abs(dense[[c, c + 3, c + 6, c + 9]]).sum() for c in range(3)]
    np.testing.assert_allclose(tracking.contribution(h, dense), expected, rtol=1e-5)
    conv = np.random.default_rng(2).normal(size=(3, 3, 3, 7))
    expected = [np.abs(h[..., c]).mean() * np.abs(conv[:, :, c]).sum() for c in range(3)]
    np.testing.assert_allclose(tracking.contribution(h, conv), expected, rtol=1e-5)


def test_contribution_of_a_pair_of_crelu_is_their_sum():
    post, outgoing = np.array([[1.0, 2, 3, 4]]), np.array([[1.0], [10], [100], [1000]])
    np.testing.assert_allclose(tracking.contribution(post, outgoing, "crelu"), [1 + 300, 20 + 4000])


def test_utility_of_a_constant_contribution_is_that_constant_from_the_first_update():
    raw, state = {}, tracking.start_utility(2)
    assert tracking.utility(state).tolist() == [0, 0]
    step = jax.jit(lambda state: tracking.update_utility(state, jnp.array([1.0, 3.0])))
    for updates in range(1, 101):
        state = step(state)
        raw[updates] = float(state.average[0])
        if updates in (1, 10, 100):
            np.testing.assert_allclose(tracking.utility(state), [1, 3], rtol=1e-4)
    assert [raw[n] for n in (1, 10, 100)] == pytest.approx([0.01, 0.095618, 0.633968], rel=1e-4)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(0.1, 0.995))
def test_utility_against_a_weighted_mean(seed, decay):
    contributions = np.random.default_rng(seed).uniform(0, 5, size=(12, 4)).astype(np.float32)
    state = utilities(contributions, decay)
    weights = decay ** np.arange(11, -1, -1)
    expected = weights @ contributions.astype(np.float64) / weights.sum()
    np.testing.assert_allclose(tracking.utility(state, decay), expected, rtol=2e-4)
    found = tracking.utility_readings(state, decay)
    assert float(found["cbp_utility_mean"]) == pytest.approx(expected.mean(), rel=2e-4)
    assert float(found["cbp_utility_min"]) == pytest.approx(expected.min(), rel=2e-4)
    assert float(found["cbp_utility_max"]) == pytest.approx(expected.max(), rel=2e-4)
    assert float(found["unit_age_mean"]) == 12


@jax.jit
def utilities(contributions, decay):
    def step(state, contribution):
        return tracking.update_utility(state, contribution, decay), None

    return jax.lax.scan(step, tracking.start_utility(4), contributions)[0]


def test_young_units_are_left_out_of_the_readings_of_utilities():
    state = tracking.reset_utility(utilities(np.full((3, 4), 2.0), 0.9), np.array([True, False, False, False]))
    assert state.age.tolist() == [0, 3, 3, 3]
    assert state.average[0] == 0
    found = tracking.utility_readings(state, 0.9)
    assert [float(found[f"cbp_utility_{k}"]) for k in ("mean", "min", "max")] == pytest.approx([2, 2, 2])
    assert float(found["unit_age_mean"]) == 9 / 4
    none = tracking.utility_readings(tracking.start_utility(2))
    assert np.isnan([float(none[f"cbp_utility_{k}"]) for k in ("mean", "min", "max")]).all()


def test_nan_makes_a_unit_useless_to_know_until_it_is_reset():
    h = np.array([[1.0, np.nan], [2, 1]])
    state = tracking.update_utility(tracking.start_utility(2), tracking.contribution(h, np.ones((2, 1))))
    assert np.isnan(tracking.utility(state)).tolist() == [False, True]
    assert np.isfinite(tracking.utility(tracking.reset_utility(state, np.array([False, True])))).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tracking.start_ages(0), "at least 1, got 0 and 64"),
        (lambda: tracking.start_ages(3, 0), "at least 1, got 3 and 0"),
        (lambda: tracking.update_ages(tracking.start_ages(3), np.ones((2, 4))), "values have 4 units, the state 3"),
        (lambda: tracking.update_ages(tracking.start_ages(3), np.ones(3)), r"values must be shaped.*\(3,\)"),
        (lambda: tracking.start_utility(0), "at least 1, got 0"),
        (lambda: tracking.update_utility(tracking.start_utility(3), np.ones(2)), r"shaped \(2,\), the state \(3,\)"),
        (lambda: tracking.contribution(np.ones((2, 3)), np.ones((4, 2))), r"\(4, 2\) does not read 3 features"),
        (lambda: tracking.contribution(np.ones((2, 3)), np.ones(3)), r"\(3,\) does not read 3 features"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(UserError, match=message):
        call()
