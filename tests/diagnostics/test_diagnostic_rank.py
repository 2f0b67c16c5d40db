"""Ranks against matrices of chosen spectrum, hand-worked numbers and an independent NumPy rewrite in float64."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax.extend import core

from plasticity.diagnostics import diagnose, rank

RANKS = ("srank", "effective_rank", "stable_rank", "feature_rank")


def with_spectrum(s, rows, columns, seed=0):
    rng = np.random.default_rng(seed)
    u, _ = np.linalg.qr(rng.normal(size=(rows, len(s))))
    v, _ = np.linalg.qr(rng.normal(size=(columns, len(s))))
    return u * np.asarray(s, float) @ v.T


@jax.jit
def compiled(phi, **thresholds):
    """The four ranks as one program: much faster here than operation by operation."""
    return diagnose(activations={"h": phi}, choose=RANKS, **thresholds)


def ranks(phi, **thresholds):
    values = compiled(phi, **thresholds)
    return {name: float(values[f"{name}/h"]) for name in RANKS}


def rewrite(phi, delta=0.01, epsilon=0.01):
    """The four formulas, spelled out on NumPy's singular values."""
    s = np.linalg.svd(np.asarray(phi, np.float64), compute_uv=False)
    p = [x / s.sum() for x in s]
    k = next(k for k in range(1, len(s) + 1) if sum(p[:k]) >= 1 - delta)
    return {
        "srank": k,
        "effective_rank": np.exp(-sum(x * np.log(x) for x in p if x > 0)),
        "stable_rank": (np.asarray(phi, np.float64) ** 2).sum() / np.linalg.norm(phi, 2) ** 2,
        "feature_rank": sum(x / np.sqrt(len(phi)) > epsilon for x in s),
    }


def test_by_hand():
    phi = np.zeros((4, 3))
    phi[0, 0], phi[1, 1] = 3, 4  # singular values 4, 3, 0
    got = ranks(phi)
    assert got["srank"] == 2
    assert got["effective_rank"] == pytest.approx((7 / 3) ** (3 / 7) * (7 / 4) ** (4 / 7), rel=1e-6)
    assert got["stable_rank"] == pytest.approx(25 / 16, rel=1e-6)
    assert got["feature_rank"] == 2


def test_srank_counts_the_value_that_crosses():
    phi = np.diag([90.0, 8, 1.5, 0.5])  # cumulative shares .9, .98, .995, 1
    assert ranks(phi)["srank"] == 3
    assert ranks(phi, delta=0.03)["srank"] == 2
    assert ranks(phi, delta=0.15)["srank"] == 1
    assert ranks(phi, delta=0.004)["srank"] == 4
    assert float(rank.srank(phi, 0.0)) <= 4


def test_srank_does_not_square_singular_values():
    phi = np.diag([10.0, 1.0])  # shares 10/11 = .909, or 100/101 = .9901 if they were squared
    assert ranks(phi)["srank"] == 2


@pytest.mark.parametrize(("rows", "columns"), [(50, 20), (20, 50), (20, 20)])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_equal_singular_values_give_their_number(rows, columns, k):
    got = ranks(with_spectrum(np.full(k, 7.0), rows, columns))
    assert got["srank"] == k  # k <= 20, so that one of them is more than a share of .01
    assert got["effective_rank"] == pytest.approx(k, rel=1e-4)
    assert got["stable_rank"] == pytest.approx(k, rel=1e-4)
    assert got["feature_rank"] == k


def test_feature_rank_divides_by_the_root_of_rows_and_is_absolute():
    s = np.array([4.0, 2.0, 0.3, 0.1])
    phi = with_spectrum(s, 100, 8)  # over sqrt(100): .4, .2, .03, .01 up to rounding
    assert float(rank.feature_rank(phi, 0.025)) == 3
    assert float(rank.feature_rank(phi, 0.05)) == 2
    assert float(rank.feature_rank(phi / 10, 0.025)) == 1
    assert float(rank.feature_rank(phi)) in (3, 4)


def test_collapsed_features_are_not_drowned_in_rounding():
    # What eigenvalues of the Gram matrix would get wrong in float32; see the module's docstring.
    phi = with_spectrum(np.r_[1.0, np.full(255, 1e-6)], 300, 256).astype(np.float32)
    got, expected = ranks(phi), rewrite(phi)
    assert got["srank"] == expected["srank"] == 1
    assert got["effective_rank"] == pytest.approx(expected["effective_rank"], rel=1e-3)
    gram = np.sqrt(np.maximum(np.asarray(jnp.linalg.eigvalsh(phi.T @ phi))[::-1], 0))
    assert float(rank.srank_of_spectrum(jnp.asarray(gram))) > 1


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (1, 3), (2, 2, 3)])
def test_zero_features_have_rank_zero(shape):
    assert set(ranks(np.zeros(shape)).values()) == {0}
    assert float(rank.stable_rank(np.zeros(shape))) == 0


def test_batch_of_one_has_rank_one():
    assert ranks(np.array([[1.0, -2, 3]])) == pytest.approx(dict.fromkeys(RANKS, 1), rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_features_give_nan(bad):
    phi = np.ones((5, 3))
    phi[2, 1] = bad
    assert all(np.isnan(value) for value in ranks(phi).values())
    for measure in (rank.srank, rank.effective_rank, rank.stable_rank, rank.feature_rank):
        assert np.isnan(measure(phi))
    assert np.isnan(rank.singular_values(phi)).all()


def test_many_rows_take_no_more_memory_than_they_fill():
    """Positions of a feature map are rows: 20,000 of 16 features are 1.2 MiB, a square matrix of them 1.5 GiB."""
    program = jax.jit(rank.singular_values).lower(jnp.zeros((20_000, 16))).compile()
    assert program.memory_analysis().temp_size_in_bytes < 20 * 2**20


def test_positions_are_rows():
    phi = np.random.default_rng(0).normal(size=(3, 2, 4, 5))
    assert ranks(phi) == pytest.approx(ranks(phi.reshape(24, 5)), rel=1e-6)


@pytest.mark.parametrize("scale", [1e-34, 1e-25, 1e25, 1e37])
def test_scale_matters_to_feature_rank_only(scale):
    phi = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    one, other = ranks(phi), ranks(phi * np.float32(scale))
    assert other.pop("feature_rank") == (8 if scale > 1 else 0)
    one.pop("feature_rank")
    assert other == pytest.approx(one, rel=1e-4)
    assert float(rank.stable_rank(phi * np.float32(scale))) == pytest.approx(one["stable_rank"], rel=1e-4)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), decay=st.floats(0.0, 1.5), tall=st.booleans())
def test_against_an_independent_rewrite(seed, decay, tall):
    rows, columns = (32, 12) if tall else (12, 32)
    phi = with_spectrum(np.exp(-decay * np.arange(12)), rows, columns, seed).astype(np.float32)
    # Thresholds that no singular value of these spectra sits on.
    got, expected = ranks(phi, delta=0.0137, epsilon=0.0111), rewrite(phi, 0.0137, 0.0111)
    assert got["effective_rank"] == pytest.approx(expected["effective_rank"], rel=1e-3)
    assert got["stable_rank"] == pytest.approx(expected["stable_rank"], rel=1e-4)
    assert float(rank.stable_rank(phi)) == pytest.approx(expected["stable_rank"], rel=1e-4)
    for name in ("srank", "feature_rank"):
        assert abs(got[name] - expected[name]) <= (1 if decay < 0.01 else 0), name
    assert 1 <= got["stable_rank"] <= got["effective_rank"] * (1 + 1e-4) <= 12 * (1 + 2e-4)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_invariances(seed):
    rng = np.random.default_rng(seed)
    phi = np.maximum(rng.normal(size=(20, 6)), 0)
    rotation, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    expected = ranks(phi)
    shuffled = phi[rng.permutation(20)][:, rng.permutation(6)]
    for other in (shuffled, phi @ rotation, np.concatenate([phi, phi])):  # a doubled batch has the same ranks
        assert ranks(other) == pytest.approx(expected, rel=1e-4)


def test_network_value_is_the_mean_over_layers():
    values = diagnose(activations={"a": np.eye(4), "b": np.eye(2)}, choose=["effective_rank"])
    assert float(values["effective_rank"]) == pytest.approx(3)


def operations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name
        for inner in core.jaxprs_in_params(eqn.params):
            yield from operations(inner)


@pytest.mark.parametrize(("chosen", "svds", "eighs"), [(RANKS, 2, 0), (("stable_rank",), 0, 2), (("srank",), 2, 0)])
def test_one_decomposition_a_layer(chosen, svds, eighs):
    phi = jnp.ones((8, 4))
    seen = list(
        operations(jax.make_jaxpr(lambda x: diagnose(activations={"a": x, "b": x + 1}, choose=chosen))(phi).jaxpr)
    )
    assert seen.count("svd") == svds
    assert seen.count("eigh") == eighs


def test_stable_rank_is_the_same_alone_and_from_the_shared_spectrum():
    phi = np.random.default_rng(0).normal(size=(30, 8))
    alone = diagnose(activations={"h": phi}, choose=["stable_rank"])["stable_rank"]
    assert float(alone) == pytest.approx(ranks(phi)["stable_rank"], rel=1e-5)
