"""Unit diagnostics against hand-worked numbers, constructed layers and an independent NumPy rewrite in float64."""

from functools import lru_cache

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from plasticity.activations import NONLINEARITIES
from plasticity.diagnostics import diagnose, units
from plasticity.diagnostics.base import Unmet
from plasticity.errors import UserError
from plasticity.network import Activation

SLOPE = 0.25


def layer(pre, activation="relu"):
    pre = jnp.asarray(pre, jnp.float32)
    return Activation(pre, NONLINEARITIES[activation].apply(pre, SLOPE))


@lru_cache
def compiled(activation="relu", choose=None):
    """`diagnose` of one layer, as one program: much faster here than operation by operation."""
    return jax.jit(lambda h, **t: diagnose(activations={"h": h}, activation=activation, choose=choose, **t))


def share(name, pre, activation="relu", **thresholds):
    value = compiled(activation, (name,))(layer(pre, activation), **thresholds)
    assert float(value[name]) == pytest.approx(float(value[f"{name}/h"]), abs=1e-7)
    return float(value[name])


def noise(rows=400, features=1, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, features))


# --- dormant --------------------------------------------------------------------------------------------------------


def test_dormant_scores_by_hand():
    h = np.array([[0.0, 1, 3], [0, 1, 1]])
    np.testing.assert_allclose(units.dormant_scores(h), [0, 1, 2], rtol=1e-6)
    assert float(diagnose(activations={"h": h}, choose=["dormant_units"], tau=1.0)["dormant_units"]) == pytest.approx(
        2 / 3
    )
    assert float(diagnose(activations={"h": h}, choose=["dormant_units"], tau=0.999)["dormant_units"]) == pytest.approx(
        1 / 3
    )


def test_dormant_default_threshold_is_that_of_redo():
    h = np.ones((4, 1000))
    h[:, 0], h[:, 1] = 0.0249, 0.0256  # the layer's mean is 0.99805
    np.testing.assert_array_equal(np.flatnonzero(units.dormant_mask(h)), [0])


def test_dormant_scores_average_over_positions():
    h = np.arange(24, dtype=float).reshape(2, 2, 2, 3)
    np.testing.assert_allclose(units.dormant_scores(h), units.dormant_scores(h.reshape(8, 3)))
    assert units.dormant_scores(h).shape == (3,)


def test_all_zero_layer_is_wholly_dormant_and_dead():
    values = diagnose(activations={"h": np.zeros((5, 4))})
    assert float(values["dormant_units"]) == float(values["dead_units"]) == 1
    assert float(values["linearized_units"]) == float(values["sign_entropy"]) == 0


def test_signs_do_not_matter_to_dormant_scores_but_cancel_nothing():
    h = noise(50, 4)
    np.testing.assert_allclose(units.dormant_scores(h), units.dormant_scores(-h), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-34, 1e-3, 1e38])
def test_dormant_scores_do_not_depend_on_scale(scale):
    h = np.minimum(np.abs(noise(50, 4)), 3).astype(np.float32)
    np.testing.assert_allclose(units.dormant_scores(h * np.float32(scale)), units.dormant_scores(h), rtol=1e-5)


# --- dead -----------------------------------------------------------------------------------------------------------


def test_relu_units_killed_by_a_bias_are_dead():
    pre = noise(200, 6) + np.array([-100, 0, 0, -100, 100, 0])
    np.testing.assert_array_equal(units.dead_mask(*layer(pre)), [1, 0, 0, 1, 0, 0])
    assert share("dead_units", pre) == pytest.approx(2 / 6)


def test_one_active_row_or_position_keeps_a_relu_unit_alive():
    pre = -np.ones((4, 3, 3, 2))
    pre[2, 1, 2, 1] = 1e-20
    np.testing.assert_array_equal(units.dead_mask(*layer(pre)), [True, False])


def test_tanh_is_dead_where_its_slope_is_below_the_tolerance():
    pre = np.ones((3, 4)) * [8.0, 7.0, -8.0, 0.0]  # 1 - tanh^2: 4.5e-7, 3.3e-6, 4.5e-7, 1
    np.testing.assert_array_equal(units.dead_mask(*layer(pre, "tanh"), "tanh"), [1, 0, 1, 0])
    assert share("dead_units", pre, "tanh", dead_tolerance=1e-5) == 0.75
    pre[0] = 0.0  # one row is enough to pass gradient
    assert share("dead_units", pre, "tanh") == 0


def test_gelu_is_dead_only_far_below_zero():
    pre = np.ones((3, 3)) * [-20.0, 20.0, -1.0]
    np.testing.assert_array_equal(units.dead_mask(*layer(pre, "gelu"), "gelu"), [1, 0, 0])


def test_leaky_relu_dies_only_without_a_slope():
    pre = -np.ones((3, 2))
    assert share("dead_units", pre, "leaky_relu") == 0
    flat = Activation(pre, np.where(pre > 0, pre, 0.0 * pre))
    assert units.dead_mask(*flat, "leaky_relu").all()


def test_outputs_that_cancel_over_rows_are_not_dead():
    assert share("dead_units", np.array([[1.0], [-1 / SLOPE]]), "leaky_relu") == 0


def test_any_elementwise_function_may_be_the_nonlinearity():
    pre = np.ones((3, 2)) * [-30.0, 0.0]
    post = jax.nn.sigmoid(pre)
    np.testing.assert_array_equal(units.dead_mask(pre, post, jax.nn.sigmoid), [1, 0])
    values = diagnose(activations={"h": (pre, post)}, activation=jax.nn.sigmoid)
    assert float(values["dead_units"]) == float(values["linearized_units"]) == 0.5


# --- linearised -----------------------------------------------------------------------------------------------------


def test_relu_units_linearised_by_a_bias():
    pre = noise(200, 5) + np.array([100, -100, 0, 100, 0])
    np.testing.assert_array_equal(units.linearized_mask(*layer(pre)), [1, 0, 0, 1, 0])
    assert share("linearized_units", pre) == pytest.approx(2 / 5)
    assert share("one_sided_units", pre) == pytest.approx(3 / 5)  # with the dead one
    assert share("affine_fit_units", pre) == pytest.approx(3 / 5)


def test_share_threshold_is_reached_from_below_and_includes_it():
    pre = np.ones((1000, 3))
    pre[:1, 0], pre[:2, 1] = -1, -1  # 999, 998 and 1000 of 1000 rows positive
    np.testing.assert_array_equal(units.linearized_mask(*layer(pre)), [1, 0, 1])
    assert share("linearized_units", pre, linear_share=0.998) == 1
    assert share("linearized_units", -pre) == 0  # on the other side a ReLU unit is nearly dead instead
    assert share("linearized_units", -pre, "leaky_relu") == pytest.approx(2 / 3)


@pytest.mark.parametrize("activation", ["leaky_relu", "crelu"])
def test_either_side_linearises_leaky_relu_and_crelu(activation):
    pre = noise(200, 3) + np.array([100, -100, 0])
    np.testing.assert_array_equal(units.linearized_mask(*layer(pre, activation), activation), [1, 1, 0])


@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_smooth_units_are_linear_on_a_small_range(activation):
    pre = noise(400, 3) * np.array([1e-3, 1.2e-2, 3.0])
    np.testing.assert_array_equal(units.linearized_mask(*layer(pre, activation), activation), [1, 1, 0])
    assert share("low_variance_units", pre, activation) == pytest.approx(1 / 3)  # 1.2e-2 squared is above 1e-4
    assert share("low_variance_units", pre, activation, linear_variance=2e-4) == pytest.approx(2 / 3)


def test_saturated_tanh_is_dead_not_linearised():
    pre = noise(100, 1) * 0.1 + 20.0
    assert share("dead_units", pre, "tanh") == share("affine_fit_units", pre, "tanh") == 1
    assert share("linearized_units", pre, "tanh") == 0


def test_affine_fit_is_the_squared_correlation():
    pre = noise(300, 4) * np.array([0.1, 0.5, 1, 3]) + np.array([0, 1, -1, 0.5])
    post = np.tanh(pre)
    expected = [np.corrcoef(pre[:, j], post[:, j])[0, 1] ** 2 for j in range(4)]
    np.testing.assert_allclose(units.affine_fit(pre, post), expected, rtol=1e-5)


def test_affine_fit_of_an_affine_map_is_one_and_survives_tiny_spreads():
    pre = noise(100, 3).astype(np.float32) * np.float32([1, 1e-25, 1e25])
    np.testing.assert_allclose(units.affine_fit(pre, -2 * pre), 1, rtol=1e-5)


def test_affine_fit_in_degenerate_cases():
    varying, constant = noise(10, 1), np.full((10, 1), 0.1)
    assert float(units.affine_fit(varying, constant)[0]) == 1
    assert float(units.affine_fit(constant, varying)[0]) == 0
    assert float(units.affine_fit(constant, constant)[0]) == 1


# --- sign entropy ---------------------------------------------------------------------------------------------------


def test_sign_entropy_by_hand():
    np.testing.assert_allclose(
        units.sign_entropy(jnp.array([0.0, 0.25, 0.5, 0.75, 1.0])), [0, 0.8112781, 1, 0.8112781, 0], rtol=1e-6
    )
    pre = np.array([[1.0, 1, -1, 0], [1, -1, -1, 0], [1, 1, -1, 1], [1, -1, -1, -1]])  # p = 1, 1/2, 0, 1/4
    assert share("sign_entropy", pre) == pytest.approx((1 + 0.8112781) / 4)


# --- CReLU: a unit is a pair of features ----------------------------------------------------------------------------


def test_crelu_unit_is_dead_or_dormant_only_if_both_halves_are():
    post = np.ones((4, 6))  # units 0, 1, 2 own features (0, 3), (1, 4), (2, 5)
    post[:, 0] = post[:, 1] = post[:, 4] = 0.0
    values = diagnose(activations={"h": post}, activation="crelu", choose=["dead_units", "dormant_units"])
    assert float(values["dead_units"]) == float(values["dormant_units"]) == pytest.approx(1 / 3)
    np.testing.assert_array_equal(units.dormant_mask(post, activation="crelu"), [0, 1, 0])


def test_negating_preactivations_changes_nothing_for_crelu():
    pre = noise(64, 5) + np.array([0, 1, -3, 50, -50])
    a, b = (compiled("crelu")(layer(s * pre, "crelu")) for s in (1, -1))
    for name in ("dead_units", "dormant_units", "linearized_units", "sign_entropy", "effective_rank"):
        assert float(a[name]) == pytest.approx(float(b[name]), rel=1e-5)


def test_odd_number_of_crelu_features_is_an_error():
    with pytest.raises(UserError, match=r"'h'.*crelu"):
        diagnose(activations={"h": np.ones((2, 3)), "ok": np.ones((2, 4))}, activation="crelu", choose=["dead_units"])


# --- outputs only ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "crelu"])
def test_outputs_alone_suffice_for_piecewise_linear_units(activation):
    pair = layer(noise(100, 6) + np.array([0, 9, -9, 1, -1, 0]), activation)
    chosen = ("dead_units", "linearized_units", "one_sided_units", "dormant_units", "sign_entropy")
    both, alone = (compiled(activation, chosen)(h) for h in (pair, pair.post))
    assert both.keys() == alone.keys()
    for key in both:
        assert float(both[key]) == pytest.approx(float(alone[key])), key


def test_outputs_alone_do_not_suffice_for_smooth_units():
    post = np.tanh(noise(10, 3))
    for name in ("dead_units", "linearized_units", "affine_fit_units"):
        with pytest.raises(Unmet, match=r"preactivations|pre, post"):
            diagnose(activations={"h": post}, activation="tanh", choose=[name])
    assert "sign_entropy" in diagnose(activations={"h": post}, activation="tanh")
    assert "dead_units" not in diagnose(activations={"h": post}, activation="tanh")
    with pytest.raises(Unmet):
        units.positive_share(None, post, jnp.tanh)


# --- degenerate input -----------------------------------------------------------------------------------------------


def test_batch_of_one():
    pre = np.array([[1.0, -1.0, 0.0, 2.0]])
    assert share("dead_units", pre) == 0.5
    assert share("linearized_units", pre) == 0.5
    assert share("sign_entropy", pre) == 0
    assert share("linearized_units", pre, "tanh") == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_diverged_layer_reads_nan_and_harms_no_other(bad):
    pre = noise(8, 3)
    wrong = pre.copy()
    wrong[3, 1] = bad
    values = diagnose(activations={"good": layer(pre), "bad": layer(wrong)})
    for key, value in values.items():
        assert np.isnan(value) == (not key.endswith("/good")), key


def test_no_layers_at_all_reads_nan():
    values = diagnose(activations={}, choose=["dead_units", "srank"])
    assert values.keys() == {"dead_units", "srank"}
    assert np.isnan(values["dead_units"])
    assert np.isnan(values["srank"])


# --- an independent rewrite, and invariances ------------------------------------------------------------------------


def rewrite(pre, activation, tau):
    """Dead, dormant and linearised units and sign entropies by plain loops in float64."""
    phi, slope = {
        "relu": (lambda z: max(z, 0.0), lambda z: float(z > 0)),
        "leaky_relu": (lambda z: z if z > 0 else SLOPE * z, lambda z: 1.0 if z > 0 else SLOPE),
        "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    }[activation]
    n, width = pre.shape
    post = np.array([[phi(z) for z in row] for row in pre])
    mean = np.abs(post).mean(axis=0)
    dead = [max(slope(z) for z in pre[:, j]) < 1e-6 for j in range(width)]
    dormant = [(mean[j] / mean.mean() if mean.mean() else 0.0) <= tau for j in range(width)]
    linear, entropy = [], []
    for j in range(width):
        p = sum(z > 0 for z in pre[:, j]) / n
        entropy.append(-sum(q * np.log2(q) for q in (p, 1 - p) if q > 0))
        if activation == "tanh":
            fit = np.polynomial.Polynomial.fit(pre[:, j], post[:, j], 1)(pre[:, j]) if np.ptp(pre[:, j]) else post[:, j]
            total = ((post[:, j] - post[:, j].mean()) ** 2).sum()
            good = total < 1e-20 or 1 - ((post[:, j] - fit) ** 2).sum() / total >= 0.999
        else:
            good = p >= 0.999 or (activation == "leaky_relu" and 1 - p >= 0.999)
        linear.append(good and not dead[j])
    return {
        "dead_units": np.mean(dead),
        "dormant_units": np.mean(dormant),
        "linearized_units": np.mean(linear),
        "sign_entropy": np.mean(entropy),
    }


# Multiples of 1/8 are exact in float32. Zero preactivations are left out for leaky ReLU, where a unit that is zero on
# all rows is called dead by its outputs although its slope is not zero.
VALUES = st.lists(st.sampled_from([-64, -9, -3, -1, 1, 2, 3, 7, 64, 65]), min_size=30, max_size=30)
SETTINGS = settings(max_examples=40, deadline=None)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh"])
@SETTINGS
@given(values=VALUES, column=st.sampled_from([-64, 1, 64, None]))
def test_against_an_independent_rewrite(activation, values, column):
    pre = np.array(values, float).reshape(6, 5) / 8
    if column is not None:
        pre[:, 2] = column / 8
    measured = compiled(activation)(layer(pre, activation), tau=0.3)
    for name, expected in rewrite(pre, activation, 0.3).items():
        assert float(measured[name]) == pytest.approx(expected, abs=1e-5), name


@lru_cache
def masks(activation):
    """Dead, linearised and dormant units and the affine fit, as one program."""

    def measure(pre, post):
        pair = pre, post, activation
        return (
            units.dead_mask(*pair),
            units.linearized_mask(*pair),
            units.dormant_mask(post, 0.5, activation),
            units.affine_fit(pre, post),
        )

    return jax.jit(measure)


@SETTINGS
@given(seed=st.integers(0, 10_000), activation=st.sampled_from(["relu", "crelu", "gelu"]))
def test_order_of_units_and_rows_does_not_matter(seed, activation):
    rng = np.random.default_rng(seed)
    pre = rng.normal(size=(24, 5)) + np.array([0, 5, -5, 2, -2])
    columns = rng.permutation(5)
    a, b = (layer(p, activation) for p in (pre, pre[rng.permutation(24)][:, columns]))
    (*masks_a, fit_a), (*masks_b, fit_b) = (masks(activation)(*h) for h in (a, b))
    for mask_a, mask_b in zip(masks_a, masks_b, strict=True):
        np.testing.assert_array_equal(mask_a[columns], mask_b)
    np.testing.assert_allclose(fit_a[columns], fit_b, rtol=1e-4)


def test_network_weighs_units_not_layers():
    dead, alive = -np.ones((4, 2)), noise(40, 6)[:4]
    values = diagnose(activations={"a": layer(dead), "b": layer(np.abs(alive))}, choose=["dead_units"])
    assert float(values["dead_units/a"]) == 1
    assert float(values["dead_units/b"]) == 0
    assert float(values["dead_units"]) == pytest.approx(2 / 8)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.int32, np.float64])
def test_other_number_types_are_computed_in_float32(dtype):
    h = (
        jnp.asarray(np.arange(12).reshape(4, 3)).astype(dtype)
        if dtype is not np.float64
        else np.arange(12.0).reshape(4, 3)
    )
    scores = units.dormant_scores(h)
    assert scores.dtype == jnp.float32
    np.testing.assert_allclose(scores, [4.5 / 5.5, 1, 6.5 / 5.5], rtol=1e-6)
