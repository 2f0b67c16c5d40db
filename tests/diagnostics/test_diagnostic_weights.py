"""Ranks, isometry, moments, zeros and sorted distances of parameters: by hand, by NumPy and SciPy, invariances."""

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings

from plasticity.diagnostics import diagnose, entries, weights
from plasticity.errors import UserError

RANKS = (
    "weight_srank",
    "weight_effective_rank",
    "weight_stable_rank",
    "weight_numerical_rank",
    "weight_spectral_norm",
    "isometry_deviation",
)
ENTRIES = ("weight_l1_norm", "weight_zero_share", "sorted_distance_from_init")
MOMENTS = ("weight_mean", "weight_std", "weight_skewness", "weight_excess_kurtosis")
ALL = (*RANKS, *ENTRIES, *MOMENTS)


@jax.jit
def compiled(params, initial):
    return diagnose(params=params, initial_params=initial, choose=ALL, delta=0.0137)


def values(params, choose, **arguments):
    return {name: float(value) for name, value in diagnose(params=params, choose=choose, **arguments).items()}


def some(seed):
    rng = np.random.default_rng(seed)
    tree = {
        "conv": {"kernel": rng.normal(size=(2, 2, 3, 6)), "bias": np.zeros(6)},
        "dense": {"kernel": rng.normal(size=(7, 4)) * (rng.uniform(size=(7, 4)) > 0.3), "bias": rng.normal(size=4)},
        "norm": {"scale": rng.normal(size=5)},
    }
    return jax.tree.map(np.float32, tree)


# --- ranks and isometry ---------------------------------------------------------------------------------------------


def test_ranks_by_hand():
    found = values({"h": {"kernel": np.diag([4.0, 2, 0]), "bias": np.ones(3)}, "norm": {"scale": np.ones(3)}}, RANKS)
    p = np.array([2 / 3, 1 / 3])
    expected = {
        "weight_srank": 2,
        "weight_effective_rank": np.exp(-np.sum(p * np.log(p))),
        "weight_stable_rank": 20 / 16,
        "weight_numerical_rank": 2,
        "weight_spectral_norm": 4,
        "isometry_deviation": 15**2 + 3**2 + 1,
    }
    # The norm has no kernel, so it has no value; a layer's kernels and the network's are averaged.
    assert found == pytest.approx(expected | {f"{name}/h": value for name, value in expected.items()}, rel=1e-5)


def test_parseval_by_hand():
    assert float(weights.isometry_deviation(np.diag([1.0, 2]))) == pytest.approx(9)


def test_isometry_is_judged_on_the_smaller_side():
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(9, 4)))
    for w in (rotation, rotation.T):
        assert float(weights.isometry_deviation(w)) == pytest.approx(0, abs=1e-5)
        assert float(weights.isometry_deviation(np.sqrt(2) * w)) == pytest.approx(4, rel=1e-4)


def test_a_convolution_is_read_as_places_and_inputs_by_outputs():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 5))
    a, b = (values({"h": {"kernel": k}}, RANKS) for k in (kernel, kernel.reshape(18, 5)))
    assert a == pytest.approx(b, rel=1e-6)


def test_a_layer_averages_its_kernels_and_the_network_all_of_them():
    params = {"a": {"q": np.eye(2), "k": 3 * np.eye(4)}, "b": {"kernel": 8 * np.eye(2)}}
    found = values(params, ["weight_spectral_norm", "weight_stable_rank"])
    assert found["weight_spectral_norm/a"] == pytest.approx(2)
    assert found["weight_spectral_norm"] == pytest.approx((1 + 3 + 8) / 3)
    assert found["weight_stable_rank"] == pytest.approx((2 + 4 + 2) / 3)


def test_degenerate_kernels():
    zero = values({"h": np.zeros((3, 4))}, RANKS)
    assert [zero[name] for name in RANKS] == [0, 0, 0, 0, 0, 3]
    none = values({"h": np.zeros((0, 4)), "norm": np.ones(3)}, RANKS)
    assert set(none) == set(RANKS)
    assert np.isnan([*none.values()]).all()
    bad = np.ones((3, 2))
    bad[0, 0] = np.nan
    found = values({"h": bad, "g": np.eye(2)}, RANKS)
    assert all(np.isnan(found[f"{name}/h"]) and np.isfinite(found[f"{name}/g"]) for name in RANKS)


# --- entries --------------------------------------------------------------------------------------------------------


def test_entries_by_hand():
    params, initial = {"h": np.array([3.0, 1, 0, -2])}, {"h": np.array([1.0, 3, 0, -1])}
    found = values(params, ENTRIES, initial_params=initial)
    assert found["weight_l1_norm"] == 6
    assert found["weight_zero_share"] == 1 / 4
    assert found["sorted_distance_from_init"] == 1  # -2, 0, 1, 3 against -1, 0, 1, 3: only one value moved
    assert values(params, ["distance_from_init"], initial_params=initial)["distance_from_init"] == 3


@pytest.mark.parametrize("argument", ["grads", "updates"])
def test_gradients_and_updates_are_counted_alike(argument):
    name = {"grads": "gradient", "updates": "update"}[argument]
    tree = {"a": np.array([0.0, -0.0, 2]), "b": np.array([[1.0, -3]])}
    found = diagnose(**{argument: tree}, choose=[f"{name}_l1_norm", f"{name}_zero_share"])
    assert float(found[f"{name}_l1_norm"]) == 6
    assert float(found[f"{name}_zero_share"]) == pytest.approx(2 / 5)
    assert float(found[f"{name}_zero_share/a"]) == pytest.approx(2 / 3)


def test_the_gradient_of_dead_units_is_exactly_zero():
    rng = np.random.default_rng(0)
    params = {"in": rng.normal(size=(3, 4)), "bias": np.array([0.0, -50, 0, -50]), "out": rng.normal(size=(4, 1))}

    def loss(params, x):
        return (jax.nn.relu(x @ params["in"] + params["bias"]) @ params["out"]).sum()

    found = diagnose(grads=jax.grad(loss)(params, rng.normal(size=(64, 3))), choose=["gradient_zero_share"])
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {f"gradient_zero_share/{name}": 0.5 for name in params} | {"gradient_zero_share": 0.5}
    )


def test_degenerate_entries():
    assert float(entries.l1_norm({})) == 0
    assert np.isnan(entries.zero_share({}))
    assert np.isnan(entries.zero_share({"h": np.zeros((0, 3))}))
    assert np.isnan(entries.zero_share({"h": np.array([np.nan, 0])}))
    assert float(entries.sorted_distance({}, {})) == 0
    with pytest.raises(UserError, match="structure or shapes"):
        entries.sorted_distance({"h": np.ones(2)}, {"h": np.ones(3)})
    none = values({"norm": np.ones(3)}, MOMENTS)
    assert set(none) == set(MOMENTS)
    assert np.isnan([*none.values()]).all()


def test_moments_are_of_kernels_and_of_constant_ones_zero():
    found = values({"h": {"kernel": np.full((5, 5), 0.1), "bias": np.array([100.0])}}, MOMENTS)
    assert [found[name] for name in MOMENTS] == pytest.approx([0.1, 0, 0, 0])


# --- independent rewrites, and invariances --------------------------------------------------------------------------


def rewrite(params, initial):
    """Every reading of each layer and of the network, in float64."""

    def flat(tree):
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64)

    def of_kernel(w):
        w = w.reshape(-1, w.shape[-1]).astype(np.float64)
        s = np.linalg.svd(w, compute_uv=False)
        p = s[s > 0] / s.sum()
        small = w.T @ w if w.shape[1] <= w.shape[0] else w @ w.T
        srank = next(k for k in range(1, len(s) + 1) if s[:k].sum() >= (1 - 0.0137) * s.sum())
        ranks = srank, np.exp(-np.sum(p * np.log(p))), np.sum(s**2) / s[0] ** 2, np.linalg.matrix_rank(w)
        return *ranks, s[0], np.linalg.norm(small - np.eye(len(small))) ** 2

    found = {}
    for suffix, own, before in [("", params, initial), *((f"/{n}", params[n], initial[n]) for n in params)]:
        sort = [np.sort(np.ravel(leaf).astype(np.float64)) for leaf in jax.tree.leaves(own)]
        old = [np.sort(np.ravel(leaf).astype(np.float64)) for leaf in jax.tree.leaves(before)]
        moved = np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(sort, old, strict=True)))
        numbers = np.abs(flat(own)).sum(), np.mean(flat(own) == 0), moved
        found |= {f"{name}{suffix}": value for name, value in zip(ENTRIES, numbers, strict=True)}
        kernels = [leaf for leaf in jax.tree.leaves(own) if leaf.ndim > 1]
        if kernels:
            x = flat(kernels)
            each = x.mean(), x.std(), scipy.stats.skew(x), scipy.stats.kurtosis(x)
            found |= {f"{name}{suffix}": value for name, value in zip(MOMENTS, each, strict=True)}
            ranks = np.mean([of_kernel(w) for w in kernels], axis=0)
            found |= {f"{name}{suffix}": value for name, value in zip(RANKS, ranks, strict=True)}
    return found


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_against_an_independent_rewrite(seed):
    params, initial = some(seed), some(seed + 1)
    found, expected = compiled(params, initial), rewrite(params, initial)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=2e-3, abs=1e-4), name


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_order_of_inputs_and_units_does_not_matter(seed):
    params, initial, rng = some(seed), some(seed + 1), np.random.default_rng(seed)
    inputs, units = rng.permutation(7), rng.permutation(4)
    dense = {"kernel": params["dense"]["kernel"][inputs][:, units], "bias": params["dense"]["bias"][units]}
    before, after = compiled(params, initial), compiled({**params, "dense": dense}, initial)
    for name, value in before.items():
        assert float(after[name]) == pytest.approx(float(value), rel=1e-3, abs=1e-4), name


def test_sorted_distance_is_at_most_the_distance_and_zero_for_a_permutation():
    params, initial = some(0), some(1)
    both = values(params, ["sorted_distance_from_init", "distance_from_init"], initial_params=initial)
    assert both["sorted_distance_from_init"] < both["distance_from_init"]
    shuffled = jax.tree.map(lambda x: np.random.default_rng(0).permutation(x.ravel()).reshape(x.shape), params)
    assert values(params, ["sorted_distance_from_init"], initial_params=shuffled)["sorted_distance_from_init"] == 0
    for name in ("conv", "dense"):  # sqrt(entries) times the 2-Wasserstein distance, which SciPy has for the first kind
        a, b = params[name]["kernel"].ravel(), initial[name]["kernel"].ravel()
        distance = float(entries.sorted_distance({"h": a}, {"h": b}))
        assert distance >= np.sqrt(a.size) * scipy.stats.wasserstein_distance(a, b) * (1 - 1e-5)
