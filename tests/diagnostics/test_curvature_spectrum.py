"""Lanczos, densities, eigenvalues, ranks and traces on matrices of chosen spectrum, against SciPy and Matfree."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg
from curved import KEY, batch, callbacks, loss_of, mlp, operator, plain, some, symmetric, with_eigenvalues
from hypothesis import given, settings

from plasticity import curvature
from plasticity.curvature.lanczos import lanczos, ritz
from plasticity.errors import UserError

MIXED = np.r_[-4.0, -1, -1, np.zeros(10), 0.5, 2, 2, 2, 9]


@jax.jit
def statistics(matrix):
    """Everything from a full number of steps."""
    op = operator(matrix)
    s = curvature.spectrum(op, KEY, op.size)
    ranks = curvature.curvature_rank(s), curvature.curvature_srank(s), curvature.curvature_effective_rank(s)
    return s.values[0], ranks, curvature.negative_curvature_share(s), s.weights[0]


def rewrite(eigenvalues, delta=0.01):
    """The three ranks and the share, in NumPy."""
    sizes = np.sort(np.abs(eigenvalues))[::-1]
    p = sizes[sizes > 0] / sizes.sum()
    srank = next(k for k in range(1, len(sizes) + 1) if sizes[:k].sum() >= (1 - delta) * sizes.sum())
    return (np.sum(sizes > 1e-3), srank, np.exp(-np.sum(p * np.log(p)))), np.mean(np.asarray(eigenvalues) < -1e-3)


def test_as_many_steps_as_rows_give_all_eigenvalues_with_their_multiplicities():
    values, ranks, negative, weights = statistics(symmetric(MIXED))
    np.testing.assert_allclose(values, np.sort(MIXED), atol=1e-5)
    np.testing.assert_allclose(weights, 1 / len(MIXED), rtol=1e-6)
    expected, share = rewrite(MIXED)
    np.testing.assert_allclose(ranks, expected, rtol=1e-4)
    assert float(negative) == pytest.approx(share)


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.floats(0.5, 4))
def test_ranks_against_an_independent_rewrite(seed, spread):
    rng = np.random.default_rng(seed)
    eigenvalues = rng.normal(size=18) * np.exp(-rng.uniform(0, spread, 18)) + 0.01 * rng.choice([-1, 1], 18)
    sizes = np.sort(np.abs(eigenvalues))[::-1]
    if np.min(np.abs(np.cumsum(sizes) / sizes.sum() - 0.99)) < 1e-4 or np.min(np.abs(sizes - 1e-3)) < 1e-4:
        return  # on a threshold float32 may decide otherwise
    values, ranks, negative, _ = statistics(symmetric(eigenvalues, seed))
    np.testing.assert_allclose(values, np.sort(eigenvalues), atol=1e-5)
    expected, share = rewrite(eigenvalues)
    np.testing.assert_allclose(ranks, expected, rtol=1e-3)
    assert float(negative) == pytest.approx(share)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e-25, 1e25])
def test_few_distinct_eigenvalues_do_not_break_lanczos(scale):
    matrix = np.diag(np.r_[3.0, 3, 0, 0, 0, 0, 0, -1]) * scale
    values = np.asarray(statistics(matrix)[0], np.float64)
    np.testing.assert_allclose(values, np.sort(np.diag(matrix)), atol=scale * 1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_an_eigenvalue_repeated_through_many_rows_is_found_as_often(seed):
    # Every step exhausts the space; what rounding leaves of a product must not pass for a direction of its own.
    matrix = symmetric(np.r_[np.full(59, -3.0), 1.0], seed)
    np.testing.assert_allclose(statistics(matrix)[0], np.r_[np.full(59, -3.0), 1.0], atol=1e-4)


def test_zero_operator_has_rank_zero():
    values, ranks, negative, _ = statistics(np.zeros((6, 6)))
    assert not values.any()
    assert [float(rank) for rank in ranks] == [0, 0, 0]
    assert float(negative) == 0


def test_an_operator_of_one_row():
    values, ranks, negative, weights = statistics(np.array([[-2.5]]))
    assert (float(values[0]), float(negative), float(weights[0])) == (-2.5, 1, 1)
    np.testing.assert_allclose(ranks, 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_gives_nan(bad):
    matrix = np.eye(5)
    matrix[2, 2] = bad
    values, ranks, negative, _ = statistics(matrix)
    assert np.isnan([*values, *ranks, negative]).all()

    @jax.jit
    def others(matrix):
        op = operator(matrix)
        few = curvature.spectrum(op, KEY, 3)
        density = curvature.spectral_density(few, points=8).density
        return curvature.largest_eigenvalues(op, KEY).values, curvature.hutchinson_trace(op, KEY), density

    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(others(matrix)))


def test_basis_is_orthonormal_and_reduces_the_operator():
    eigenvalues = np.r_[1e3, 1e2, np.linspace(-1, 1, 198)]
    matrix = symmetric(eigenvalues)
    steps = jax.jit(lambda m: lanczos(operator(m), KEY, 60))(matrix)
    q = np.asarray(steps.basis, np.float64)
    np.testing.assert_allclose(q @ q.T, np.eye(60), atol=2e-6)
    beta = np.asarray(steps.beta)[:-1]
    tridiagonal = np.diag(steps.alpha) + np.diag(beta, 1) + np.diag(beta, -1)
    np.testing.assert_allclose(q @ matrix @ q.T, tridiagonal, atol=2e-3)
    values, _ = ritz(steps)
    assert np.sum(np.asarray(values) > 500) == 1  # no copies of a value that has converged


@pytest.mark.parametrize(
    ("sign", "which"), [("largest algebraic", "LA"), ("most negative", "SA"), ("largest magnitude", "LM")]
)
def test_largest_eigenvalues_against_scipy(sign, which):
    matrix = symmetric(np.r_[-30, -7, 12, 25, 28, np.random.default_rng(0).normal(size=120)])
    found = jax.jit(lambda m: curvature.largest_eigenvalues(operator(m), KEY, 3, sign))(matrix)
    expected = scipy.sparse.linalg.eigsh(matrix, 3, which=which, return_eigenvectors=False)
    order = {"LA": -expected, "SA": expected, "LM": -np.abs(expected)}[which]
    np.testing.assert_allclose(found.values, expected[np.argsort(order)], atol=2e-3)
    assert np.all(np.abs(found.values - expected[np.argsort(order)]) <= found.residuals + 1e-4)


def test_residuals_bound_the_error_of_few_steps():
    eigenvalues = np.linspace(-1, 1, 100) ** 3
    run = jax.jit(lambda m: curvature.largest_eigenvalues(operator(m), KEY, 4, order=8))
    found = run(symmetric(eigenvalues))
    for value, residual in zip(*map(np.asarray, found), strict=True):
        assert np.min(np.abs(eigenvalues - value)) <= residual + 1e-5
    assert found.residuals[-1] > 1e-3  # so few steps are not enough, and they say so
    exact = curvature.largest_eigenvalues(operator(np.diag([1.0, 2])), KEY, 2)
    np.testing.assert_allclose(exact.values, [2, 1], atol=1e-6)
    np.testing.assert_array_equal(exact.residuals, 0)


def test_moments_of_the_quadrature_match_those_of_the_matrix():
    eigenvalues = np.r_[np.random.default_rng(0).normal(size=299), 20.0]
    s = jax.jit(lambda m: curvature.spectrum(operator(m), KEY, 20, 40))(symmetric(eigenvalues))
    assert s.values.shape == s.weights.shape == (40, 20)
    assert float(jnp.sum(s.weights)) == pytest.approx(1, abs=1e-5)
    for power in (1, 2, 4):
        spread = np.std(eigenvalues**power) * np.sqrt(2 / (40 * 300))
        assert abs(float(curvature.moment(s, power)) - np.mean(eigenvalues**power)) < 4 * spread


def test_quadrature_is_exact_for_the_probe_that_was_drawn():
    matrix = symmetric(np.linspace(-2, 3, 40))
    steps = lanczos(operator(matrix), KEY, 5)
    values, vectors = map(np.asarray, ritz(steps))
    q = np.asarray(steps.basis[0], np.float64)
    for power in range(10):  # degree 2 m - 1
        assert np.sum(vectors[0] ** 2 * values**power) == pytest.approx(
            q @ np.linalg.matrix_power(matrix, power) @ q, rel=1e-3
        )


def test_estimated_ranks_are_near_the_exact_ones():
    eigenvalues = np.r_[np.linspace(1, 2, 60), np.linspace(-1, -0.5, 40), np.zeros(300)]
    s = jax.jit(lambda m: curvature.spectrum(operator(m), KEY, 30, 20))(symmetric(eigenvalues))
    assert float(curvature.curvature_rank(s, 0.1)) == pytest.approx(100, rel=0.1)
    assert float(curvature.negative_curvature_share(s, 0.1)) == pytest.approx(0.1, rel=0.15)
    assert float(curvature.curvature_srank(s)) == pytest.approx(rewrite(eigenvalues)[0][1], rel=0.1)
    assert float(curvature.curvature_effective_rank(s)) == pytest.approx(rewrite(eigenvalues)[0][2], rel=0.1)


@pytest.mark.parametrize("eigenvalues", [MIXED, np.zeros(6), np.full(6, -3.0)])
def test_density_integrates_to_one_and_has_the_mean(eigenvalues):
    s = curvature.spectrum(with_eigenvalues(eigenvalues), KEY, len(eigenvalues))
    d = curvature.spectral_density(s)
    grid, density = np.asarray(d.grid, np.float64), np.asarray(d.density, np.float64)
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-3)
    mean = np.mean(eigenvalues)
    assert np.trapezoid(density * grid, grid) == pytest.approx(mean, abs=1e-3 + 1e-3 * abs(mean))
    variance = np.var(eigenvalues) + float(d.width) ** 2
    assert np.trapezoid(density * (grid - mean) ** 2, grid) == pytest.approx(variance, rel=1e-2)


def test_density_against_gaussians_on_the_eigenvalues():
    d = curvature.spectral_density(curvature.spectrum(with_eigenvalues(MIXED), KEY, len(MIXED)), broadening=0.05)
    width = 0.05 * (9 + 4)
    grid = np.asarray(d.grid)[:, None]
    expected = np.mean(np.exp(-(((grid - MIXED) / width) ** 2) / 2), axis=1) / (width * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(d.density, expected, atol=1e-4)


def test_trace_is_exact_in_one_sample_for_a_diagonal_operator():
    diagonal = np.r_[-3.0, 2, 0, 5]
    value, error = curvature.hutchinson_trace(operator(np.diag(diagonal)), KEY, 1)
    assert (float(value), float(error)) == (4, np.inf)
    np.testing.assert_allclose(curvature.hutchinson_diagonal(operator(np.diag(diagonal)), KEY, 1), diagonal)
    assert float(curvature.hutchinson_trace(operator(np.diag(diagonal)), KEY, 5).standard_error) < 1e-6


def test_standard_error_of_the_trace_is_its_spread():
    matrix = symmetric(np.random.default_rng(0).normal(size=50))
    keys = jax.random.split(KEY, 200)
    runs = jax.jit(jax.vmap(lambda key: curvature.hutchinson_trace(operator(matrix), key, 30)))(keys)
    off = matrix - np.diag(np.diag(matrix))
    expected = np.sqrt(2 * np.sum(off**2) / 30)
    assert np.std(runs.value) == pytest.approx(expected, rel=0.2)
    assert np.mean(runs.standard_error) == pytest.approx(expected, rel=0.1)
    assert abs(np.mean(runs.value) - np.trace(matrix)) < 4 * expected / np.sqrt(200)
    diagonal = jax.jit(lambda m: curvature.hutchinson_diagonal(operator(m), KEY, 2000))(matrix)
    np.testing.assert_allclose(diagonal, np.diag(matrix), atol=5 * np.sqrt(np.max(np.sum(off**2, 1)) / 2000))


def measure(params, x, y, scale=1.0):
    """Everything of one run, as a user would compile it."""
    op = curvature.hessian(lambda *args: scale * loss_of(mlp)(*args), params, x, y, chunk=3)
    s = curvature.spectrum(op, KEY, op.size)
    return s.values, curvature.largest_eigenvalues(op, KEY, 2).values, curvature.hutchinson_trace(op, KEY, 4).value


def test_runs_under_vmap_are_what_they_are_alone_and_nothing_calls_the_host():
    x, y = batch()
    runs = [some(mlp, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *runs)
    lanes = jax.jit(jax.vmap(measure, in_axes=(0, None, None)))(stacked, x, y)
    alone = jax.jit(measure)
    for i, run in enumerate(runs):
        for a, b in zip(lanes, alone(run, x, y), strict=True):
            np.testing.assert_allclose(a[i], b, atol=1e-5)
    assert not callbacks(measure, runs[0], x, y)


def test_spectra_do_not_see_the_order_of_hidden_units_and_scale_with_the_loss():
    x, y = batch()
    params, order = some(mlp), np.array([2, 0, 3, 1])
    hidden, output = params["hidden_0"], params["output"]
    moved = {
        "hidden_0": {"kernel": hidden["kernel"][:, order], "bias": hidden["bias"][order]},
        "output": {"kernel": output["kernel"][order], "bias": output["bias"]},
    }
    compiled = jax.jit(measure)
    values, largest, _ = compiled(params, x, y, 1.0)
    for other, factor in (compiled(moved, x, y, 1.0), 1), (compiled(params, x, y, 8.0), 8):
        np.testing.assert_allclose(other[0], factor * values, atol=1e-5 * factor)
        np.testing.assert_allclose(other[1], factor * largest, atol=1e-5 * factor)


def test_against_matfree():
    matfree = pytest.importorskip("matfree")
    from matfree import decomp, funm, stochtrace

    matrix = jnp.asarray(symmetric(np.random.default_rng(0).uniform(0.5, 3, 60)), jnp.float32)
    assert matfree
    integrand = funm.integrand_funm_sym(funm.dense_funm_sym_eigh(jnp.square), decomp.tridiag_sym(10))
    estimate = stochtrace.estimator(integrand, stochtrace.sampler_rademacher(jnp.ones(60), num=400))
    theirs = float(estimate(lambda v: matrix @ v, KEY))
    ours = 60 * float(curvature.moment(curvature.spectrum(operator(matrix), KEY, 10, 400), 2))
    exact = float(jnp.sum(matrix**2))
    assert theirs == pytest.approx(exact, rel=0.03)
    assert ours == pytest.approx(exact, rel=0.03)


def test_bad_input():
    op = operator(np.eye(4))
    s = curvature.spectrum(op, KEY, 4)
    for call, message in [
        (lambda: curvature.spectrum(op, KEY, 0), "at least 1, got 0"),
        (lambda: curvature.spectrum(op, KEY, 2, 0), "probes must be at least 1"),
        (lambda: curvature.spectral_density(s, points=1), "points must be at least 2"),
        (lambda: curvature.largest_eigenvalues(op, KEY, 5), "between 1 and the number of Lanczos steps, 4, got 5"),
        (lambda: curvature.largest_eigenvalues(op, KEY, sign="largest"), "Did you mean 'largest magnitude'|algebraic"),
        (lambda: curvature.hutchinson_trace(op, KEY, 0), "samples must be at least 1"),
        (lambda: curvature.hessian(loss_of(plain), {}, *batch()), "no entries"),
    ]:
        with pytest.raises(UserError, match=message):
            call()
