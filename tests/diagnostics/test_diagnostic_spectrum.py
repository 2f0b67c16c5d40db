"""Readings of a layer's spectrum on matrices of chosen spectrum, by NumPy, and which path each of them takes."""

import warnings

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given, settings

from plasticity.diagnostics import diagnose, rank, spectrum
from plasticity.errors import UserError

NAMES = (
    "pca_rank",
    "participation_ratio",
    "numerical_rank",
    "top_singular_value",
    "top_singular_share_of_sum",
    "top_singular_share_of_energy",
    "top_singular_mean_alignment",
    "condition_number",
    "rank_cap",
)
DELTA = 0.0137  # a threshold that no spectrum here sits on


def with_spectrum(s, rows, columns, seed=0):
    rng = np.random.default_rng(seed)
    u, _ = np.linalg.qr(rng.normal(size=(rows, len(s))))
    v, _ = np.linalg.qr(rng.normal(size=(columns, len(s))))
    return (u * np.asarray(s, float) @ v.T).astype(np.float32)


@jax.jit
def compiled(phi):
    found = diagnose(activations={"h": phi}, choose=NAMES, delta=DELTA)
    return {name: found[f"{name}/h"] for name in NAMES}


def values(phi):
    return {name: float(value) for name, value in compiled(np.asarray(phi, np.float32)).items()}


def rewrite(phi):
    """The formulas, on NumPy's decompositions in float64."""
    phi = np.asarray(phi, np.float64)
    u, s, _ = np.linalg.svd(phi, full_matrices=False)
    energy = s**2 / np.sum(s**2)
    covariance = np.linalg.eigvalsh(np.cov(phi.T, bias=True).reshape(phi.shape[1], phi.shape[1]))
    counts = s > np.finfo(np.float32).eps * max(phi.shape) * s[0]
    return {
        "pca_rank": next(k for k in range(1, len(s) + 1) if energy[:k].sum() >= 1 - DELTA),
        "participation_ratio": covariance.sum() ** 2 / (covariance**2).sum(),
        "numerical_rank": counts.sum(),
        "top_singular_value": s[0],
        "top_singular_share_of_sum": s[0] / s.sum(),
        "top_singular_share_of_energy": energy[0],
        "top_singular_mean_alignment": abs(u[:, 0].sum()) / np.sqrt(len(phi)),
        "condition_number": s[0] / s[-1] if counts.all() else np.inf,
        "rank_cap": min(phi.shape),
    }


# --- the numbers ----------------------------------------------------------------------------------------------------


def test_by_hand():
    found = values(np.array([[3.0, 0], [0, 4], [0, 0], [0, 0]]))
    # Centred columns: variances 27/16 and 3, covariance -3/4.
    trace, squares = 27 / 16 + 3, (27 / 16) ** 2 + 9 + 2 * 9 / 16
    assert found == pytest.approx(
        {
            "pca_rank": 2,
            "participation_ratio": trace**2 / squares,
            "numerical_rank": 2,
            "top_singular_value": 4,
            "top_singular_share_of_sum": 4 / 7,
            "top_singular_share_of_energy": 16 / 25,
            "top_singular_mean_alignment": 1 / 2,  # (0, 1, 0, 0) against (1, 1, 1, 1) / 2
            "condition_number": 4 / 3,
            "rank_cap": 2,
        },
        rel=1e-5,
    )


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(0.05, 1.0), st.booleans())
def test_against_an_independent_rewrite(seed, decay, tall):
    rows, columns = (32, 10) if tall else (10, 32)
    phi = with_spectrum(np.exp(-decay * np.arange(10)), rows, columns, seed) + np.float32(0.01 * (seed % 3))
    found, expected = values(phi), rewrite(phi)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=5e-3 if name == "condition_number" else 1e-3), name


@pytest.mark.parametrize("shape", [(32, 10), (10, 32)])
def test_against_torch(shape):
    torch = pytest.importorskip("torch")
    phi = with_spectrum([5, 3, 1, 0.1, 1e-9], *shape)
    full = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for x in (phi, full):
        theirs, found = torch.from_numpy(x), values(x)
        np.testing.assert_allclose(
            rank.singular_values(x), torch.linalg.svdvals(theirs), rtol=1e-4, atol=1e-6 * found["top_singular_value"]
        )
        assert found["numerical_rank"] == int(torch.linalg.matrix_rank(theirs))
        assert found["top_singular_value"] == pytest.approx(float(torch.linalg.matrix_norm(theirs, 2)), rel=1e-5)
    assert values(full)["condition_number"] == pytest.approx(float(torch.linalg.cond(torch.from_numpy(full))), rel=1e-3)


@pytest.mark.parametrize(("rows", "columns"), [(40, 12), (12, 40)])
def test_chosen_ranks_are_found(rows, columns):
    found = values(with_spectrum([5.0] * 7, rows, columns))
    assert found["numerical_rank"] == found["pca_rank"] == 7
    assert found["top_singular_value"] == pytest.approx(5, rel=1e-5)
    assert found["top_singular_share_of_energy"] == pytest.approx(1 / 7, rel=1e-4)
    assert found["condition_number"] == np.inf
    assert found["rank_cap"] == 12


def test_numerical_rank_counts_what_rounding_has_not_swallowed():
    assert values(with_spectrum([1, 1e-3, 1e-4, 1e-5], 40, 12))["numerical_rank"] == 4
    assert values(with_spectrum([1, 1e-3, 1e-9], 40, 12))["numerical_rank"] == 2
    assert values(with_spectrum(np.geomspace(1, 1e-3, 10), 40, 10))["condition_number"] == pytest.approx(1e3, rel=1e-2)


def test_a_large_mean_is_the_top_direction_and_leaves_the_participation_ratio_alone():
    rng = np.random.default_rng(0)
    centred = rng.normal(size=(64, 6)).astype(np.float32)
    centred -= centred.mean(axis=0)
    without, with_mean = values(centred), values(centred + np.float32(20))
    assert without["top_singular_mean_alignment"] < 1e-3
    assert with_mean["top_singular_mean_alignment"] > 0.99
    assert with_mean["top_singular_share_of_energy"] > 0.99
    assert with_mean["pca_rank"] == 1
    assert with_mean["participation_ratio"] == pytest.approx(without["participation_ratio"], rel=1e-3)


def test_a_dead_unit_makes_the_condition_infinite():
    phi = np.random.default_rng(0).normal(size=(30, 4))
    assert values(phi)["condition_number"] < 10
    phi[:, 2] = 0
    assert values(phi)["condition_number"] == np.inf


# --- degenerate features and invariances ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 3), (3, 8), (1, 1)])
def test_zero_features_read_zero(shape):
    found = values(np.zeros(shape))
    assert found.pop("rank_cap") == min(shape)
    assert set(found.values()) == {0}


def test_equal_rows_have_one_direction_and_no_covariance():
    found = values(np.full((10, 4), 1 / 3))
    assert found["numerical_rank"] == found["pca_rank"] == 1
    assert found["participation_ratio"] == 0
    assert found["top_singular_mean_alignment"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_read_nan(bad):
    phi = np.ones((6, 3))
    phi[1, 1] = bad
    assert np.isnan([*values(phi).values()]).all()


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_invariances(seed):
    rng = np.random.default_rng(seed)
    phi = np.maximum(rng.normal(size=(32, 10)), 0)
    rotation, _ = np.linalg.qr(rng.normal(size=(10, 10)))
    expected = values(phi)
    for other, size in (
        (phi[rng.permutation(32)][:, rng.permutation(10)], 1),
        (phi @ rotation, 1),
        (1e-12 * phi, 1e-12),
        (1e12 * phi, 1e12),
    ):
        found = values(other)
        assert found.pop("top_singular_value") == pytest.approx(size * expected["top_singular_value"], rel=1e-4)
        assert found == pytest.approx({name: expected[name] for name in found}, rel=2e-3)


# --- paths ----------------------------------------------------------------------------------------------------------


def test_which_path_ran_is_told():
    assert rank.paths(["stable_rank", "pca_rank", "dead_units"]) == {"stable_rank": "gram", "pca_rank": "gram"}
    assert rank.paths(["stable_rank", "srank"]) == {"stable_rank": "svd", "srank": "svd"}  # they share what is exact
    assert rank.paths(["stable_rank", "srank"], "gram") == {"stable_rank": "gram", "srank": "gram"}
    assert rank.paths(["srank", "feature_rank"], "gram") == {"srank": "svd", "feature_rank": "svd"}
    assert rank.paths("srank") == {"srank": "svd"}
    assert set(rank.paths().values()) == {"svd"}
    for arguments, message in ((["sranks"], "Did you mean 'srank'"), (["srank"], "Did you mean 'gram'")):
        with pytest.raises(UserError, match=message):
            rank.paths(arguments, "exact" if message.endswith("srank'") else "grams")


@pytest.mark.parametrize("choose", [("srank",), ("pca_rank",), ("srank", "feature_rank")])
@pytest.mark.parametrize("kind", ["exact", "gram"])
def test_the_path_that_is_told_is_the_one_that_runs(choose, kind):
    program = str(
        jax.make_jaxpr(lambda x: diagnose(activations={"h": x}, choose=choose, spectrum=kind))(np.ones((9, 4)))
    )
    path = rank.paths(choose, kind)[choose[0]]
    assert (" svd[" in program) == (path == "svd")
    assert (" eigh[" in program) == (path == "gram")


def test_the_cheap_path_is_accurate_where_it_is_used_and_not_below():
    phi = with_spectrum(np.geomspace(1, 3e-3, 12), 60, 12)
    np.testing.assert_allclose(rank.gram_singular_values(phi), rank.singular_values(phi), rtol=2e-2)
    steep = with_spectrum([1, 1e-5], 60, 12)
    assert float(rank.singular_values(steep)[1]) == pytest.approx(1e-5, rel=1e-2)
    assert float(rank.gram_singular_values(steep)[1]) == 0  # lost, as documented
    cheap = diagnose(activations={"h": phi}, choose=["effective_rank", "srank"], spectrum="gram")
    exact = diagnose(activations={"h": phi}, choose=["effective_rank", "srank"])
    for name, value in exact.items():
        assert float(cheap[name]) == pytest.approx(float(value), rel=1e-4), name


# --- batches smaller than the width ---------------------------------------------------------------------------------


def test_a_batch_smaller_than_the_width_is_warned_of_once_and_its_cap_stated(monkeypatch):
    monkeypatch.setattr(rank, "_warned", set())
    small, large = {"h": np.ones((4, 6)), "wide enough": np.ones((4, 4))}, {"h": np.ones((2, 3, 6))}
    assert rank.rank_caps(small) == {"h": (4, 6)}
    assert rank.rank_caps(large) == {}  # positions are rows
    assert rank.rank_caps({"h": (np.ones((4, 6)), np.ones((4, 6)))}) == {"h": (4, 6)}
    with pytest.warns(UserWarning, match=r"capped by the number of rows \(h: 4 rows, 6 features\)"):
        rank.warn_if_capped(small)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rank.warn_if_capped(small)
        rank.warn_if_capped(large)
        rank.warn_if_capped({})
    with pytest.warns(UserWarning, match="h: 3 rows"):
        rank.warn_if_capped({"h": np.ones((3, 6))})
    assert float(diagnose(activations=small, choose=["rank_cap"])["rank_cap/h"]) == 4


def test_functions_on_arrays_are_the_diagnostics():
    phi = np.random.default_rng(0).normal(size=(20, 5))
    found = values(phi)
    for function, name in (
        (spectrum.participation_ratio, "participation_ratio"),
        (spectrum.numerical_rank, "numerical_rank"),
        (spectrum.condition_number, "condition_number"),
        (spectrum.top_mean_alignment, "top_singular_mean_alignment"),
        (lambda phi: spectrum.pca_rank(phi, DELTA), "pca_rank"),
    ):
        assert float(function(phi)) == pytest.approx(found[name], rel=1e-3), name
