"""Interquartile means and their intervals: hand-worked numbers, scipy and rliable as oracles, coverage, invariants."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as oracle

from analysis import stats

values = st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=12)


def test_iqm_by_hand():
    assert stats.iqm(np.array([0.0, 1, 2, 3, 100, -50, 4, 5])) == pytest.approx((1 + 2 + 3 + 4) / 4)
    assert stats.iqm(np.array([7.0, 1.0, 4.0])) == 4.0  # a quarter of three, rounded down, is none


@given(values)
def test_iqm_is_the_trimmed_mean_of_scipy(x):
    assert stats.iqm(np.array(x)) == pytest.approx(oracle.trim_mean(x, 0.25), abs=1e-9)


def test_iqm_is_that_of_rliable():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metrics = pytest.importorskip("rliable.metrics")
    scores = np.random.default_rng(0).random((7, 5))
    assert stats.iqm(scores.ravel()) == pytest.approx(metrics.aggregate_iqm(scores))


def test_nan_is_not_trimmed_away():
    assert math.isnan(stats.iqm(np.array([1.0, 2, 3, np.nan])))


def test_three_seeds_give_students_interval():
    x = np.array([0.2, 0.5, 0.3])
    low, high = oracle.t.interval(0.95, 2, x.mean(), oracle.sem(x))
    assert stats.estimate(x)[:4] == pytest.approx((x.mean(), low, high, 3))


@pytest.mark.parametrize("n", [6, 12, 20])
def test_percentiles_are_those_of_scipy_at_the_expanded_level(n):
    x = np.random.default_rng(n).normal(size=n)
    # Hesterberg 2015, table: at n = 20 and 95 % the expanded tail is 0.0159 and not 0.025.
    tail = oracle.norm.cdf(-math.sqrt(n / (n - 1)) * oracle.t.ppf(0.975, n - 1))
    assert n != 20 or tail == pytest.approx(0.0159, abs=2e-4)
    theirs = oracle.bootstrap(
        (x,), lambda a, axis: oracle.trim_mean(a, 0.25, axis=axis), rng=1, n_resamples=20_000,
        confidence_level=1 - 2 * tail, method="percentile",
    ).confidence_interval  # fmt: skip
    ours = stats.estimate(x)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.06 * x.std())


@pytest.mark.parametrize("n", [3, 5, 6, 10])
@pytest.mark.parametrize("skewed", [False, True])
def test_coverage_is_at_least_nominal(n, skewed):
    rng = np.random.default_rng(n)
    x = rng.exponential(size=(4000, n)) if skewed else rng.normal(size=(4000, n))
    truth = stats.iqm(rng.exponential(size=(200_000, n))).mean() if skewed else 0.0
    _, low, high = stats.interval(x)
    covered = np.mean((low <= truth) & (truth <= high))
    # Standard error of the simulation is 0.0034. Skew costs any interval of three values some coverage.
    assert covered > (0.86 if skewed and n == 3 else 0.92 if skewed else 0.94)
    assert covered < 0.985


@pytest.mark.parametrize(("tasks", "seeds"), [(2, 3), (5, 3), (3, 5)])
def test_coverage_over_several_tasks(tasks, seeds):
    rng = np.random.default_rng(tasks)
    hits = 0
    for _ in range(400):
        e = stats.stratified([k + (k + 1) * rng.normal(size=seeds) for k in range(tasks)])
        hits += e.low <= (tasks - 1) / 2 <= e.high
    assert hits / 400 > 0.91


def test_a_task_weighs_the_same_whatever_its_number_of_seeds():
    assert stats.stratified([np.zeros(3), np.ones(9)]).value == 0.5
    assert stats.stratified([np.zeros(3), np.ones(9)]).n == 3


@settings(max_examples=40)
@given(values, st.randoms(use_true_random=False))
def test_order_of_the_seeds_is_irrelevant(x, random):
    shuffled = random.sample(x, len(x))
    assert stats.estimate(x) == pytest.approx(stats.estimate(shuffled), abs=1e-9)
    other = stats.stratified([np.array(x), np.arange(4.0)])
    assert other == pytest.approx(stats.stratified([np.array(shuffled), np.arange(4.0)]), abs=1e-9)


@settings(max_examples=40)
@given(values)
def test_mirrored_and_shifted_data_give_mirrored_and_shifted_intervals(x):
    x = np.round(np.array(x), 3)
    e, moved = stats.estimate(x), stats.estimate(3.0 + 2.0 * x)
    assert moved[:3] == pytest.approx([3 + 2 * v for v in e[:3]], abs=1e-6)
    if len(x) <= stats.EXACT_UP_TO:
        mirrored = stats.estimate(-x)
        assert mirrored[:3] == pytest.approx((-e.value, -e.high, -e.low), abs=1e-6)


def test_equal_values_have_an_interval_of_no_width():
    e = stats.estimate([0.1] * 5)
    assert e.low == e.value == e.high == pytest.approx(0.1)
    assert stats.estimate([0.0] * 9)[:3] == (0, 0, 0)


def test_higher_level_is_wider():
    for n in (4, 9):
        x = np.random.default_rng(n).normal(size=n)
        narrow, wide = stats.estimate(x, 0.9), stats.estimate(x, 0.99)
        assert wide.low < narrow.low < narrow.high < wide.high


def test_one_seed_and_none():
    e = stats.estimate([0.5])
    assert e.value == 0.5
    assert math.isnan(e.low)
    assert e.n == 1
    assert stats.estimate([]).n == 0
    assert math.isnan(stats.stratified([]).value)
    assert math.isnan(stats.stratified([np.zeros(3), np.zeros(0)]).value)


def test_summarise_leaves_out_what_is_not_finite():
    frame = pd.DataFrame({"arm": list("aaaabbb"), "value": [1.0, 2, 3, np.nan, 5, np.inf, 7]})
    table = stats.summarise(frame, ["arm"])
    assert table["n"].tolist() == [3, 2]
    assert table["value"].tolist() == [2.0, 6.0]
    assert table.loc[0, ["value", "low", "high"]].tolist() == pytest.approx(list(stats.estimate([1, 2, 3])[:3]))
    assert stats.summarise(frame.iloc[:0], ["arm"]).empty
