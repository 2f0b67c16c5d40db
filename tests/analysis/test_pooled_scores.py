"""Aggregates over runs x games: hand-worked numbers, scipy and rliable as oracles, the stratified bootstrap."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy import stats as oracle

from analysis import pooled
from analysis.games import STATISTICS

BY_HAND = [np.array([0.0, 0.5]), np.array([1.0, 3.0])]  # two games, two runs


def test_by_hand():
    assert pooled.pooled_iqm(BY_HAND) == pytest.approx((0.5 + 1.0) / 2)
    assert pooled.mean(BY_HAND) == pytest.approx((0.25 + 2.0) / 2)
    assert pooled.median([*BY_HAND, np.array([0.4, 0.6])]) == pytest.approx(0.5)
    # min(score, 1): 0, 0.5, 1, 1
    assert pooled.optimality_gap(BY_HAND) == pytest.approx(1 - 2.5 / 4)


def test_profile_by_hand():
    share, low, high = pooled.profile(BY_HAND, np.array([-1.0, 0.0, 0.5, 0.9, 3.0]))
    assert share.tolist() == [1.0, 0.75, 0.5, 0.5, 0.0]  # > and not >=
    assert (low <= share).all()
    assert (share <= high).all()
    # Above 0.5 are all runs of the second game and none of the first: resampling within games cannot change that.
    assert low[3] == high[3] == 0.5


def scores(runs=5, games=7):
    return np.random.default_rng(3).gamma(2.0, 0.6, size=(runs, games))


def test_formulas_are_those_of_rliable_written_anew():
    x = scores()
    strata = list(x.T)
    assert pooled.pooled_iqm(strata) == pytest.approx(oracle.trim_mean(x, 0.25, axis=None))
    assert pooled.median(strata) == pytest.approx(np.median(np.mean(x, axis=0)))
    assert pooled.mean(strata) == pytest.approx(np.mean(np.mean(x, axis=0)))
    assert pooled.optimality_gap(strata) == pytest.approx(1.0 - np.mean(np.minimum(x, 1.0)))


def test_formulas_are_those_of_rliable():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metrics = pytest.importorskip("rliable.metrics")
    x = scores()
    theirs = (metrics.aggregate_iqm, metrics.aggregate_median, metrics.aggregate_mean, metrics.aggregate_optimality_gap)
    for statistic, reference in zip(STATISTICS.values(), theirs, strict=True):
        assert statistic(list(x.T)) == pytest.approx(reference(x))


@pytest.mark.parametrize("name", STATISTICS)
def test_interval_is_the_stratified_percentile_bootstrap(name):
    x, statistic = scores(), STATISTICS[name]
    rng = np.random.default_rng(0)
    # An independent loop: every game draws its own runs.
    drawn = [statistic([column[rng.integers(0, 5, 5)] for column in x.T]) for _ in range(6000)]
    e = pooled.estimate(list(x.T), statistic)
    assert (e.low, e.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.12 * np.std(drawn) * 2)
    assert e.n == 5
    assert e.low <= e.value <= e.high


def test_games_are_never_resampled():
    # Runs of a game are equal, games differ widely: nothing can vary.
    e = pooled.estimate([np.full(3, 0.1), np.full(3, 5.0)])
    assert e.low == e.value == e.high


def test_few_runs():
    assert math.isnan(pooled.estimate([np.array([1.0]), np.array([2.0])]).low)
    assert pooled.estimate([np.array([1.0]), np.array([2.0])]).value == 1.5
    assert math.isnan(pooled.estimate([np.array([]), np.array([2.0])]).value)
    assert pooled.estimate([]).n == 0
    assert np.isnan(pooled.profile([np.array([1.0])], np.array([0.5]))[1]).all()


def test_deterministic_and_wider_at_a_higher_level():
    strata = list(scores().T)
    assert pooled.estimate(strata) == pooled.estimate(strata)
    narrow, wide = pooled.estimate(strata, level=0.8), pooled.estimate(strata, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high
