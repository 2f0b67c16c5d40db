"""Distributions of preactivations and their shift: by hand, against SciPy, on moved and constant units, invariances."""

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings

from plasticity.diagnostics import diagnose, preactivations
from plasticity.errors import UserError

POOLED = ("preactivation_mean", "preactivation_std", "preactivation_skewness", "preactivation_excess_kurtosis")
COMPARED = ("preactivation_shift", "preactivation_log_std_ratio")


def layer(pre):
    pre = np.asarray(pre, np.float32)
    return {"h": (pre, np.maximum(pre, 0))}


@jax.jit
def compiled(now, before):
    return diagnose(activations=now, reference_activations=before, choose=(*POOLED, *COMPARED))


def values(now, before=None):
    found = compiled(layer(now), layer(now if before is None else before))
    return {name: float(value) for name, value in found.items() if "/" not in name}


def test_by_hand():
    found = values([[0.0, 2], [4, 2]], [[-1.0, 0], [1, 2]])
    # Pooled: 0, 2, 4, 2. By unit: means 2, 2 and deviations 2, 0 now; 0, 1 and 1, 1 before.
    assert found == pytest.approx(
        {
            "preactivation_mean": 2,
            "preactivation_std": np.sqrt(2),
            "preactivation_skewness": 0,
            "preactivation_excess_kurtosis": 2 - 3,
            "preactivation_shift": (2 + 1) / 2,
            "preactivation_log_std_ratio": (np.log(2) + np.log(1e-6)) / 2,  # the second has become constant
        },
        rel=1e-5,
        abs=1e-6,
    )


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(-3, 3), st.booleans())
def test_against_scipy(seed, mean, skewed):
    rng = np.random.default_rng(seed)
    now, before = (rng.normal(mean, 2, size=(20, 4)).astype(np.float32) for _ in range(2))
    now = np.exp(now / 3) if skewed else now
    found, pooled = values(now, before), now.astype(np.float64).ravel()
    assert found["preactivation_mean"] == pytest.approx(pooled.mean(), rel=1e-4, abs=1e-5)
    assert found["preactivation_std"] == pytest.approx(pooled.std(), rel=1e-4)
    assert found["preactivation_skewness"] == pytest.approx(scipy.stats.skew(pooled), rel=1e-3, abs=1e-4)
    assert found["preactivation_excess_kurtosis"] == pytest.approx(scipy.stats.kurtosis(pooled), rel=1e-3, abs=1e-4)
    moved = np.abs(now.mean(0) - before.mean(0)) / before.std(0)
    assert found["preactivation_shift"] == pytest.approx(moved.mean(), rel=1e-3, abs=1e-5)
    ratio = np.log(now.std(0) / before.std(0))
    assert found["preactivation_log_std_ratio"] == pytest.approx(ratio.mean(), rel=1e-3, abs=1e-5)


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_order_scale_and_doubled_batches_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    now, before = rng.normal(size=(2, 20, 4)) + rng.normal(size=4)
    units = rng.permutation(4)
    expected = values(now, before)
    shuffled = values(now[rng.permutation(20)][:, units], before[rng.permutation(20)][:, units])
    doubled = values(np.concatenate([now, now]), before)
    for name, value in expected.items():
        assert shuffled[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
        assert doubled[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    for scale in (1e-20, 1e15):
        scaled = values(now * scale, before * scale)
        for name in ("preactivation_skewness", "preactivation_excess_kurtosis", *COMPARED):
            assert scaled[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-4), name
        assert scaled["preactivation_std"] == pytest.approx(expected["preactivation_std"] * scale, rel=1e-4)


def test_a_bias_moves_and_a_gain_spreads():
    before = np.random.default_rng(0).normal(size=(200, 3))
    before = (before - before.mean(0)) / before.std(0)
    moved, wider = values(before + np.array([3, -3, 0]), before), values(before * 4, before)
    assert moved["preactivation_shift"] == pytest.approx(2, rel=1e-4)
    assert moved["preactivation_log_std_ratio"] == pytest.approx(0, abs=1e-4)
    assert wider["preactivation_shift"] == pytest.approx(0, abs=1e-4)
    assert wider["preactivation_log_std_ratio"] == pytest.approx(np.log(4), rel=1e-4)


def test_constant_units_have_bounded_comparisons():
    constant, varying = np.full((6, 1), 0.1), np.linspace(0, 1, 6)[:, None]
    assert values(constant, constant)["preactivation_shift"] == 0
    assert values(constant, constant)["preactivation_log_std_ratio"] == 0
    assert values(varying, constant)["preactivation_shift"] == pytest.approx(1e6)
    assert values(varying, constant)["preactivation_log_std_ratio"] == pytest.approx(np.log(1e6), rel=1e-5)
    assert values(constant, varying)["preactivation_log_std_ratio"] == pytest.approx(-np.log(1e6), rel=1e-5)
    # Means of equal numbers over another number of rows differ by rounding, which is no shift.
    units = np.linspace(0.1, 1, 7, dtype=np.float32)
    before = np.broadcast_to(units, (3, 7))
    for rows in (5, 11, 1001):
        assert not preactivations.shift(np.broadcast_to(units, (rows, 7)), before).any()
    found = values(constant)
    assert [found[name] for name in POOLED] == pytest.approx([0.1, 0, 0, 0])


def test_a_quiet_unit_beside_a_loud_one_keeps_its_spread():
    quiet = np.linspace(-1, 1, 8)
    _, std = preactivations.unit_moments(np.stack([quiet * 1e-20, quiet * 1e10], axis=1))
    np.testing.assert_allclose(np.asarray(std) / [1e-20, 1e10], quiet.std(), rtol=1e-4)


def test_the_network_weighs_layers_in_moments_and_units_in_comparisons():
    now = {"a": (np.array([[1.0], [1]]), np.ones((2, 1))), "b": (np.array([[0.0] * 3, [2] * 3]), np.ones((2, 3)))}
    before = {"a": (np.array([[0.0], [2]]), np.ones((2, 1))), "b": (np.array([[-4.0] * 3, [-2] * 3]), np.ones((2, 3)))}
    found = diagnose(activations=now, reference_activations=before, choose=["preactivation_std", "preactivation_shift"])
    assert float(found["preactivation_std"]) == pytest.approx((0 + 1) / 2)
    assert float(found["preactivation_shift"]) == pytest.approx((0 + 3 * 4) / 4)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["now", "before"])
def test_what_is_not_finite_reads_nan(bad, where):
    given_ = {"now": np.ones((4, 2)), "before": np.ones((4, 2))}
    given_[where][0, 0] = bad
    found = values(**given_)
    broken = {name for name, value in found.items() if np.isnan(value)}
    assert broken == ({*POOLED, *COMPARED} if where == "now" else set(COMPARED))


def test_preactivations_must_be_given_on_both_sides():
    post = {"h": np.ones((4, 2))}
    with pytest.raises(UserError, match=r"needs activations= with \(pre, post\) for every layer"):
        diagnose(activations=post, choose=["preactivation_mean"])
    with pytest.raises(UserError, match=r"layer 'h' has no preactivations: pass reference_activations="):
        diagnose(activations=layer(np.ones((4, 2))), reference_activations=post, choose=["preactivation_shift"])
