"""Tangent kernels and gradient cosines against explicit Jacobians; statistics and splits of known matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import AS_USERS
from curved import MODELS, batch, callbacks, loss_of, mlp, plain, some, symmetric
from jax.flatten_util import ravel_pytree

from plasticity import curvature
from plasticity.errors import UserError


def jacobian(model, params, x):
    """`[n, outputs, p]` in float64."""
    vector, unravel = ravel_pytree(params)
    return np.asarray(jax.jit(jax.jacrev(lambda theta: model(unravel(theta), x)))(vector), np.float64)


def example_gradients(model, params, x, y):
    """`[n, p]` in float64."""
    vector, unravel = ravel_pytree(params)
    one = jax.jit(jax.grad(lambda theta, x, y: loss_of(model)(unravel(theta), x, y)))
    return np.stack([np.asarray(one(vector, x[i : i + 1], y[i : i + 1]), np.float64) for i in range(len(x))])


@pytest.mark.parametrize("name", MODELS)
def test_tangent_kernel_is_the_jacobian_squared(name):
    model, (x, _) = MODELS[name], batch()
    params = some(model)
    j = jacobian(model, params, x)

    @jax.jit
    def kernels(params):
        return curvature.tangent_kernel(model, params, x), curvature.tangent_kernel(model, params, x, output=1)

    both, one = kernels(params)
    np.testing.assert_allclose(both, np.einsum("iop,jop->ij", j, j), rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(one, j[:, 1] @ j[:, 1].T, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 50])
def test_chunks_change_nothing(chunk):
    x, y = batch()

    @jax.jit
    def matrices(params):
        return (
            curvature.tangent_kernel(mlp, params, x, chunk=chunk),
            curvature.gradient_gram(loss_of(mlp), params, x, y, chunk=chunk),
            curvature.gradient_cosine(loss_of(mlp), params, x, y, chunk=chunk),
        )

    params = some(mlp)
    j, g = jacobian(mlp, params, x), example_gradients(mlp, params, x, y)
    expected = np.einsum("iop,jop->ij", j, j), g @ g.T
    unit = g / np.linalg.norm(g, axis=1, keepdims=True)
    for got, wanted in zip(matrices(params), (*expected, unit @ unit.T), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=5e-5, atol=1e-5)
        np.testing.assert_array_equal(np.asarray(got), np.asarray(got).T)


def test_memory_is_bounded_by_the_chunk():
    x = np.zeros((512, 100), np.float32)
    params = {"w": np.zeros((100, 64), np.float32), "b": np.zeros(64, np.float32), "v": np.zeros((64, 3), np.float32)}

    def temporaries(chunk):
        compiled = jax.jit(lambda params, x: curvature.tangent_kernel(plain, params, x, chunk=chunk))
        return compiled.lower(params, x).compile(AS_USERS).memory_analysis().temp_size_in_bytes

    kernels = 4 * 512 * 512 * 4
    assert temporaries(16) < 3 * 16 * 6656 * 4 + kernels
    assert temporaries(512) > 512 * 6400 * 4


def test_outputs_without_an_axis_and_with_two():
    x, _ = batch()
    params = some(plain)

    @jax.jit
    def kernels(params):
        return (
            curvature.tangent_kernel(lambda p, x: plain(p, x)[:, 0], params, x),
            curvature.tangent_kernel(lambda p, x: plain(p, x)[:, :1, None], params, x, output=0),
            curvature.tangent_kernel(plain, params, x, output=0),
        )

    a, b, c = kernels(params)
    np.testing.assert_array_equal(a, c)
    np.testing.assert_array_equal(b, c)


def test_an_example_without_gradient_has_no_cosine_and_tiny_ones_have():
    # The gradient of <theta, x> is x.
    x = np.array([[1.0, 0], [0, 0], [3, 4], [-1e-30, 0]], np.float32)
    cosine = jax.jit(lambda p: curvature.gradient_cosine(lambda p, x: jnp.mean(x @ p["w"]), p, x, chunk=2))
    got = cosine({"w": np.ones(2, np.float32), "none": np.zeros((0, 3), np.float32)})
    expected = [[1, 0, 0.6, -1], [0, 0, 0, 0], [0.6, 0, 1, -0.6], [-1, 0, -0.6, 1]]
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert float(curvature.kernel_effective_rank(np.asarray(got)[:2, :2])) == pytest.approx(1, abs=1e-5)


def test_nan_stays_in_its_row_and_column_and_makes_statistics_nan():
    x, y = batch()
    x[2] = np.nan

    @jax.jit
    def matrices(params):
        kernel = curvature.tangent_kernel(plain, params, x, chunk=3)
        return kernel, curvature.gradient_cosine(loss_of(plain), params, x, y, chunk=3)

    for matrix in matrices(some(plain)):
        bad = np.isnan(np.asarray(matrix))
        assert bad[2].all()
        assert bad[:, 2].all()
        assert bad.sum() == 13
        assert np.isnan(statistics(matrix)).all()
        assert all(np.isnan(leaf).any() for leaf in jax.tree.leaves(split(matrix)))


def test_runs_under_vmap_are_what_they_are_alone_and_nothing_calls_the_host():
    x, y = batch()

    def measure(params):
        kernel = curvature.tangent_kernel(mlp, params, x, chunk=3)
        cosine = curvature.gradient_cosine(loss_of(mlp), params, x, y, chunk=3)
        return kernel, cosine, curvature.kernel_effective_rank(kernel), curvature.kernel_heat_map(kernel, clusters=2)

    runs = [some(mlp, seed) for seed in range(3)]
    lanes = jax.jit(jax.vmap(measure))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *runs))
    alone = jax.jit(measure)
    for i, run in enumerate(runs):
        for a, b in zip(jax.tree.leaves(lanes), jax.tree.leaves(alone(run)), strict=True):
            np.testing.assert_allclose(a[i], b, atol=1e-4, rtol=1e-5)
    assert not callbacks(measure, runs[0])


@jax.jit
def statistics(kernel):
    e = curvature.kernel_eigenvalues(kernel)
    ranks = curvature.kernel_effective_rank(e), curvature.kernel_srank(e)
    return jnp.stack([*ranks, curvature.kernel_condition(e), curvature.kernel_top_share(e)])


@jax.jit
def split(kernel):
    return curvature.diagonal_plus_low_rank(kernel, 2)


def test_statistics_of_chosen_eigenvalues():
    eigenvalues = np.array([8.0, 4, 2, 1, 0.5, 0.1])
    p = eigenvalues / eigenvalues.sum()
    expected = np.exp(-np.sum(p * np.log(p))), 5, 80, p[0]
    for scale in (1, 1e-25, 1e25):
        np.testing.assert_allclose(statistics(symmetric(eigenvalues) * scale), expected, rtol=1e-4)
    kernel = symmetric(eigenvalues)
    np.testing.assert_allclose(curvature.kernel_top_share(kernel), p[0], rtol=1e-5)
    np.testing.assert_allclose(curvature.kernel_srank(kernel, 0.2), 3)  # 14 of 15.6, above 0.8 of it


def test_statistics_of_degenerate_kernels():
    np.testing.assert_array_equal(statistics(np.zeros((4, 4))), [0, 0, np.inf, 0])
    np.testing.assert_allclose(statistics(np.array([[3.0]])), [1, 1, 1, 1])
    np.testing.assert_allclose(statistics(np.ones((5, 5))), [1, 1, np.inf, 1], rtol=1e-4)
    np.testing.assert_allclose(statistics(2 * np.eye(5)), [5, 5, 1, 0.2], rtol=1e-4)
    np.testing.assert_allclose(statistics(np.eye(3, dtype=int)), [3, 3, 1, 1 / 3], rtol=1e-4)
    # Rows of gradients that are repeated: the rank is that of the distinct ones.
    assert float(statistics(np.kron(np.eye(3), np.ones((2, 2))))[0]) == pytest.approx(3, rel=1e-4)


def test_diagonal_plus_low_rank_is_recovered():
    rng = np.random.default_rng(0)
    diagonal, factors = rng.uniform(0.5, 2, 30), rng.normal(size=(30, 2)) * [3, 1]
    kernel = np.diag(diagonal) + factors @ factors.T
    for scale in (1.0, 1e-20):
        got = split(kernel * scale)
        np.testing.assert_allclose(got.diagonal / scale, diagonal, atol=2e-2)
        np.testing.assert_allclose(got.factors @ got.factors.T / scale, factors @ factors.T, atol=2e-2)
        assert float(got.residual) < 1e-3
        assert float(got.off_diagonal_residual) < 1e-3
        assert float(got.diagonal_share) == pytest.approx(diagonal.sum() / np.trace(kernel), rel=1e-2)


def test_the_residual_never_grows_and_is_that_of_the_split():
    rows = np.random.default_rng(0).normal(size=(12, 8))
    kernel = rows @ rows.T
    residuals = [float(curvature.diagonal_plus_low_rank(kernel, 3, n).residual) for n in (1, 3, 10)]
    assert residuals == sorted(residuals, reverse=True)
    assert residuals[-1] > 0.05  # rank 8 is not rank 3
    got = split(kernel)
    rest = kernel - np.diag(got.diagonal) - got.factors @ got.factors.T
    assert float(got.residual) == pytest.approx(np.linalg.norm(rest) / np.linalg.norm(kernel), rel=1e-4)
    off = rest - np.diag(np.diag(rest))
    whole = np.linalg.norm(kernel - np.diag(np.diag(kernel)))
    assert float(got.off_diagonal_residual) == pytest.approx(np.linalg.norm(off) / whole, rel=1e-4)
    assert np.all(got.diagonal >= 0)


def test_split_of_degenerate_kernels():
    zero = split(np.zeros((4, 4)))
    assert not any(np.any(leaf) for leaf in zero)
    diagonal = split(np.diag([1.0, 2, 3]))
    np.testing.assert_allclose(diagonal.diagonal, [1, 2, 3])
    np.testing.assert_allclose(diagonal[2:], [0, 0, 1], atol=1e-12)
    ones = split(np.ones((6, 6)))
    np.testing.assert_allclose(ones.diagonal, 0, atol=1e-3)
    np.testing.assert_allclose(ones.factors @ ones.factors.T, 1, atol=1e-3)
    single = curvature.diagonal_plus_low_rank(np.array([[2.0]]))
    assert float(single.diagonal[0] + single.factors[0, 0] ** 2) == pytest.approx(2)


def test_heat_map_orders_by_label_or_finds_the_blocks():
    groups = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [6, 4, 2]))
    kernel = (groups[:, None] == groups) * 1.0 + 0.01 * np.eye(12)
    shown = curvature.kernel_heat_map(kernel, clusters=3)
    np.testing.assert_array_equal(shown.groups, np.repeat([0, 1, 2], [6, 4, 2]))  # the largest first
    np.testing.assert_array_equal(groups[shown.order], shown.groups)
    np.testing.assert_allclose(shown.matrix, kernel[np.ix_(shown.order, shown.order)], rtol=1e-6)
    labels = np.array([2, 0, 1, 0, 2, 1, 1, 0, 2, 2, 2, 2])
    np.testing.assert_array_equal(curvature.kernel_heat_map(kernel, labels).order, np.argsort(labels, kind="stable"))
    for n in (1, 3):
        assert sorted(np.asarray(curvature.kernel_heat_map(np.ones((n, n))).order)) == list(range(n))


def test_kernels_do_not_see_the_order_of_hidden_units():
    x, _ = batch()
    params, order = some(plain), np.array([2, 0, 3, 1])
    moved = {"w": params["w"][:, order], "b": params["b"][order], "v": params["v"][order]}
    compiled = jax.jit(lambda params: curvature.tangent_kernel(plain, params, x))
    np.testing.assert_allclose(compiled(params), compiled(moved), rtol=1e-5)


def test_gram_of_gradients_holds_the_gradient_of_the_batch():
    x, y = batch()
    params = some(plain)
    gram = jax.jit(lambda p: curvature.gradient_gram(loss_of(plain), p, x, y))(params)
    whole = ravel_pytree(jax.jit(jax.grad(loss_of(plain)))(params, x, y))[0]
    assert float(jnp.mean(gram)) == pytest.approx(float(whole @ whole), rel=1e-4)


X, Y = batch()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: curvature.tangent_kernel(plain, {"w": np.ones(3, int)}, X), r"params\['w'\] is int"),
        (lambda: curvature.tangent_kernel(plain, some(plain), X[:0]), "not zero"),
        (lambda: curvature.tangent_kernel(plain, some(plain), X, output=3), "between 0 and 2, got 3"),
        (lambda: curvature.tangent_kernel(plain, some(plain), X, chunk=0), "at least 1, got 0"),
        (lambda: curvature.tangent_kernel(lambda p, x: jnp.sum(p["w"]), some(plain), X), r"7 inputs, got \(\)"),
        (lambda: curvature.gradient_cosine(lambda p, x: x, some(plain), X), "must be a scalar"),
        (lambda: curvature.gradient_cosine(loss_of(plain), some(plain)), "a batch of examples is needed"),
        (lambda: curvature.gradient_gram(loss_of(plain), some(plain), X, Y[:2]), "one length"),
        (lambda: curvature.kernel_effective_rank(np.ones((2, 3))), r"must be square and not empty, got \(2, 3\)"),
        (lambda: curvature.kernel_eigenvalues(np.ones((0, 0))), r"must be square and not empty, got \(0, 0\)"),
        (lambda: curvature.diagonal_plus_low_rank(np.eye(3), 4), "between 1 and the number of inputs, 3, got 4"),
        (lambda: curvature.diagonal_plus_low_rank(np.eye(3), 1, 0), "iterations must be at least 1"),
        (lambda: curvature.kernel_heat_map(np.eye(3), np.zeros(2, int)), r"one for each of the 3 inputs.*\(2,\)"),
        (lambda: curvature.kernel_heat_map(np.eye(3), clusters=0), "clusters must be at least 1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(UserError, match=message):
        call()
