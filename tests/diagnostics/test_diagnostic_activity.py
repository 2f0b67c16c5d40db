"""How much units do, and units that copy each other: by hand, by plain loops, on constructed units, invariances."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from plasticity.diagnostics import activity, diagnose, similarity
from plasticity.errors import UserError

SILENT = ("always_zero_units", "nearly_dead_units", "rarely_active_units", "zero_activation_share", "feature_norm")
TWINS = ("cloned_units", "cloned_units_centred")
LEVELS = {"zero_tolerance": 0.1, "quiet_share": 0.7, "active_share": 0.3}
OVERLAP = {"tau": 0.5}


def values(post, choose, **arguments):
    found = diagnose(activations={"h": np.asarray(post)}, choose=choose, **arguments)
    return {name: float(value) for name, value in found.items() if "/" not in name}


@jax.jit
def compiled(post, reference):
    names = (*SILENT, *TWINS, "dormant_overlap")
    found = diagnose(activations={"h": post}, reference_activations={"h": reference}, choose=names, **LEVELS, **OVERLAP)
    return {name: found[name] for name in names}


# --- silence --------------------------------------------------------------------------------------------------------


def test_four_things_that_are_called_dead_differ():
    h = np.zeros((200, 5))
    h[0, 1] = 1.0  # fires on half a percent of the rows
    h[:20, 2] = 1.0  # on a tenth
    h[:, 3] = 1e-8  # on all, below the tolerance
    h[:, 4] = 1.0
    assert values(h, SILENT) == pytest.approx(
        {
            "always_zero_units": 1 / 5,
            "nearly_dead_units": 3 / 5,  # zero, half a percent, and the tiny one
            "rarely_active_units": 2 / 5,
            "zero_activation_share": (200 + 199 + 180) / 1000,
            "feature_norm": (np.sqrt(3) + 19 * np.sqrt(2) + 180 + 0 * 1) / 200,
        },
        rel=1e-5,
    )


def test_shares_are_reached_and_not_passed():
    h = np.zeros((20, 1))
    h[0] = 1  # quiet on exactly 95 % of the rows, active on exactly 5 %
    assert values(h, ["nearly_dead_units"])["nearly_dead_units"] == 1
    assert values(h, ["nearly_dead_units"], quiet_share=0.951)["nearly_dead_units"] == 0
    assert values(h, ["rarely_active_units"], active_share=0.05)["rarely_active_units"] == 0
    assert values(h, ["rarely_active_units"], active_share=0.0501)["rarely_active_units"] == 1


def test_outputs_that_cancel_are_not_silent_and_positions_are_rows():
    h = np.zeros((2, 2, 2, 2))
    h[0, 1, 0, 0], h[1, 1, 0, 0] = 1.0, -1.0
    found = values(h, ["always_zero_units", "zero_activation_share"], activation="tanh")
    assert found == {"always_zero_units": 0.5, "zero_activation_share": 14 / 16}


def test_a_pair_of_crelu_is_silent_only_if_both_are():
    h = np.array([[0.0, 0, 0, 1], [0, 0, 0, 0]])  # units (0, 2) and (1, 3)
    found = values(h, SILENT, activation="crelu")
    assert found["always_zero_units"] == found["nearly_dead_units"] == found["rarely_active_units"] == 0.5
    assert found["zero_activation_share"] == 7 / 8


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e30])
def test_feature_norm_neither_vanishes_nor_overflows(scale):
    assert float(activity.feature_norm(np.float32(scale) * np.array([[3, 4], [0, 0]], np.float32))) == pytest.approx(
        2.5 * scale, rel=1e-5
    )


# --- saturation -----------------------------------------------------------------------------------------------------


def test_saturation_by_hand():
    h = np.array([[0.95, 0.0], [-0.91, 0.9], [0.5, -1.0], [0.0, 0.89]])
    assert values(h, ["saturated_activation_share"], activation="tanh") == {"saturated_activation_share": 3 / 8}
    assert values(h, ["saturated_activation_share"], activation="tanh", saturation=0.85) == {
        "saturated_activation_share": 5 / 8
    }
    sigmoid = np.array([[0.96, 0.94], [0.04, 0.06]])  # the outer twentieth on either side
    found = values(sigmoid, ["saturated_activation_share"], activation=jax.nn.sigmoid)
    assert found == {"saturated_activation_share": 0.5}


def test_saturation_of_what_has_no_bounds_is_told_and_left_out():
    with pytest.raises(
        UserError, match="saturation is defined for bounded nonlinearities such as tanh, not for 'relu'"
    ):
        values(np.ones((2, 2)), ["saturated_activation_share"])
    assert "saturated_activation_share" not in diagnose(activations={"h": np.ones((2, 2))})


# --- DR3's dot product ----------------------------------------------------------------------------------------------


def test_feature_dot_product_by_hand():
    a, b = np.array([[1.0, 2], [3, 0]]), np.array([[3.0, 1], [-1, 5]])
    assert float(activity.feature_dot_product(a, b)) == (5 - 3) / 2
    assert np.isnan(activity.feature_dot_product(a, np.array([[np.nan, 1], [1, 1]])))
    with pytest.raises(UserError, match=r"features \(2, 2\) and next_features \(3, 2\)"):
        activity.feature_dot_product(a, np.ones((3, 2)))


# --- twins ----------------------------------------------------------------------------------------------------------


def test_scaled_copies_are_twins_and_negated_ones_are_not():
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(3, 200))
    h = np.stack([a, 1e-12 * a, b, c, -c, 0 * a], axis=1)  # the last is dead: neither a twin nor counted
    found = values(h, TWINS, activation="tanh")
    assert found == pytest.approx({"cloned_units": 2 / 5, "cloned_units_centred": 2 / 5})


def test_centring_tells_a_common_mean_from_a_copy():
    rng = np.random.default_rng(0)
    h = 10 + rng.normal(size=(500, 4))  # positive, alike in their mean alone
    h[:, 3] = 10 + 2 * (h[:, 2] - 10)
    found = values(h, TWINS)
    assert found == pytest.approx({"cloned_units": 1, "cloned_units_centred": 2 / 4})


def test_dead_units_are_no_twins_of_each_other():
    assert values(np.zeros((8, 3)), TWINS) == {"cloned_units": 0, "cloned_units_centred": 0}
    constant = np.ones((8, 3)) * [1e6, 2e6, 3e6]  # equal on all rows: copies, but nothing varies
    assert values(constant, TWINS) == {"cloned_units": 1, "cloned_units_centred": 0}


def test_twins_are_looked_for_within_a_layer():
    a = np.random.default_rng(0).normal(size=(50, 2))
    found = diagnose(activations={"x": a, "y": np.concatenate([a, a], axis=1)}, choose=TWINS, activation="tanh")
    assert float(found["cloned_units/x"]) == 0
    assert float(found["cloned_units/y"]) == 1
    assert float(found["cloned_units"]) == pytest.approx(4 / 6)


def test_a_crelu_twin_copies_both_features():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(100, 3))
    z[:, 1] = 2 * z[:, 0]
    post = np.concatenate([np.maximum(z, 0), np.maximum(-z, 0)], axis=1)
    assert values(post, ["cloned_units"], activation="crelu") == pytest.approx({"cloned_units": 2 / 3})
    post[:, 4] = rng.uniform(size=100)  # the second feature of the second unit is its own now
    assert values(post, ["cloned_units"], activation="crelu") == {"cloned_units": 0}


# --- sets of dormant units ------------------------------------------------------------------------------------------


def test_overlap_by_hand():
    def mask(*units):
        return np.isin(np.arange(6), units)

    assert float(similarity.overlap(mask(0, 1, 2), mask(1, 2, 3, 4))) == pytest.approx(2 / 3)
    assert float(similarity.overlap(mask(0), mask(0, 1, 2, 3))) == 1
    assert float(similarity.overlap(mask(0), mask(1))) == 0
    assert float(similarity.overlap(mask(), mask(0, 1))) == float(similarity.overlap(mask(), mask())) == 0


def test_overlap_of_layers_and_of_the_network():
    now = {"a": np.array([[0.0, 0, 1, 1]]), "b": np.array([[1.0, 0, 0]])}
    then = {"a": np.array([[0.0, 1, 0, 1]]), "b": np.array([[1.0, 0, 1], [1, 0, 1]])}  # the number of rows may differ
    found = diagnose(activations=now, reference_activations=then, choose=["dormant_overlap"])
    assert float(found["dormant_overlap/a"]) == 1 / 2
    assert float(found["dormant_overlap/b"]) == 1
    assert float(found["dormant_overlap"]) == pytest.approx(2 / 3)


# --- an independent rewrite, and invariances ------------------------------------------------------------------------


def rewrite(h, reference):
    rows, units = h.shape
    quiet = [sum(abs(x) <= 0.1 for x in h[:, j]) / rows for j in range(units)]
    active = [sum(x != 0 for x in h[:, j]) / rows for j in range(units)]

    def twins(h):
        live = [j for j in range(units) if np.ptp(h[:, j]) or h[0, j]]
        return sum(
            any(h[:, i] @ h[:, j] > 0.95 * np.linalg.norm(h[:, i]) * np.linalg.norm(h[:, j]) for j in live if j != i)
            for i in live
        ) / max(len(live), 1)

    def dormant(h):
        mean = np.abs(h).mean(axis=0)
        return {j for j in range(units) if mean[j] <= 0.5 * mean.mean()}

    a, b = dormant(h), dormant(reference)
    return {
        "always_zero_units": np.mean([x == 0 for x in active]),
        "nearly_dead_units": np.mean([x >= 0.7 for x in quiet]),
        "rarely_active_units": np.mean([x < 0.3 for x in active]),
        "zero_activation_share": 1 - np.mean(active),
        "feature_norm": np.mean([np.sqrt(sum(x * x for x in row)) for row in h]),
        "cloned_units": twins(h),
        "cloned_units_centred": twins(h - h.mean(axis=0)),
        "dormant_overlap": len(a & b) / max(min(len(a), len(b)), 1),
    }


def some(seed):
    """Rectified units with a dead, a rare and a doubled one now and then; on no threshold of `LEVELS`."""
    rng = np.random.default_rng(seed)
    both = np.maximum(rng.normal(rng.normal(size=6), 1, size=(2, 11, 6)), 0)
    both[0, :, 0] *= rng.integers(2)
    both[0, :, 1] = both[0, :, 2] * 3 if rng.integers(2) else both[0, :, 1]
    return both.astype(np.float32)


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_against_an_independent_rewrite(seed):
    now, then = some(seed)
    found, expected = compiled(now, then), rewrite(now.astype(np.float64), then.astype(np.float64))
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-5, abs=1e-6), name


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_order_of_units_and_rows_does_not_matter(seed):
    now, then = some(seed)
    rng = np.random.default_rng(seed)
    units = rng.permutation(6)
    before = compiled(now, then)
    after = compiled(now[rng.permutation(11)][:, units], then[rng.permutation(11)][:, units])
    doubled = compiled(np.concatenate([now, now]), then)
    for name, value in before.items():
        assert float(after[name]) == pytest.approx(float(value), rel=1e-5, abs=1e-6), name
        assert float(doubled[name]) == pytest.approx(float(value), rel=1e-5, abs=1e-6), name


def test_scaling_a_layer_matters_to_what_has_a_tolerance_only():
    now, then = some(3)
    before, after = compiled(now, then), compiled(now * 1e-3, then)
    changed = {name for name in before if abs(float(after[name]) - float(before[name])) > 1e-6}
    assert changed == {"nearly_dead_units", "feature_norm"}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_reads_nan(bad):
    now, then = some(0)
    now[0, 0] = bad
    assert np.isnan(jnp.stack(list(compiled(now, then).values()))).all()
