"""Products with the Hessian and the Gauss-Newton matrix against dense matrices, in chunks, over runs, on bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import AS_USERS
from curved import KEY, MODELS, batch, callbacks, cross_entropy, loss_of, matrix_of, mlp, plain, some
from jax.flatten_util import ravel_pytree

from plasticity import curvature
from plasticity.errors import UserError


def dense_jacobian(model, params, x):
    """`[n, outputs, p]`, entry by entry of the outputs with reverse mode."""
    vector, unravel = ravel_pytree(params)
    return jax.jacrev(lambda theta: model(unravel(theta), x))(vector)


@pytest.mark.parametrize("name", MODELS)
def test_hessian_is_the_dense_one(name):
    model, (x, y) = MODELS[name], batch()
    params = some(model)
    vector, unravel = ravel_pytree(params)
    # Reverse over reverse, because a rule for reverse mode alone has no forward mode.
    dense = jax.jit(jax.jacrev(jax.grad(lambda theta: loss_of(model)(unravel(theta), x, y))))(vector)
    got = jax.jit(lambda p: matrix_of(curvature.hessian(loss_of(model), p, x, y)))(params)
    np.testing.assert_allclose(got, dense, atol=2e-6)
    np.testing.assert_allclose(got, got.T, atol=2e-6)
    assert np.linalg.eigvalsh(np.asarray(got, np.float64))[0] < -1e-3  # or else nothing indefinite is tested


def test_hessian_is_what_jax_says_in_float64():
    x, y = batch()
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), some(plain))
        vector, unravel = ravel_pytree(params)
        x = x.astype(np.float64)
        dense = jax.jit(jax.hessian(lambda theta: loss_of(plain)(unravel(theta), x, y)))(vector)
        got = jax.jit(lambda p: matrix_of(curvature.hessian(loss_of(plain), p, x, y)))(params)
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, dense, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_gauss_newton_is_the_dense_one(name):
    model, (x, y) = MODELS[name], batch()
    params = some(model)
    jacobian = np.asarray(dense_jacobian(model, params, x), np.float64)
    outputs = np.asarray(model(params, x), np.float64)
    p = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
    dense = sum(j.T @ (np.diag(q) - np.outer(q, q)) @ j for j, q in zip(jacobian, p, strict=True)) / len(x)
    build = jax.jit(lambda p: matrix_of(curvature.gauss_newton(model, cross_entropy, p, x, y)))
    np.testing.assert_allclose(build(params), dense, atol=2e-6)


def test_gauss_newton_is_the_hessian_of_a_linear_model():
    x, y = batch()
    params = {"w": np.ones((5, 3), np.float32), "b": np.zeros(3, np.float32)}

    def linear(params, x):
        return x @ params["w"] + params["b"]

    @jax.jit
    def both(params):
        gauss_newton = curvature.gauss_newton(linear, cross_entropy, params, x, y)
        return matrix_of(gauss_newton), matrix_of(curvature.hessian(loss_of(linear), params, x, y))

    one, other = both(params)
    np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_chunks_change_nothing(chunk):
    x, y = batch()

    @jax.jit
    def both(params, v):
        return (
            curvature.hessian(loss_of(mlp), params, x, y, chunk=chunk).apply(v),
            curvature.gauss_newton(mlp, cross_entropy, params, x, y, chunk=chunk).apply(v),
            curvature.hessian(loss_of(mlp), params, x, y).apply(v),
            curvature.gauss_newton(mlp, cross_entropy, params, x, y).apply(v),
        )

    params = some(mlp)
    a, b, c, d = both(params, np.random.default_rng(0).normal(size=ravel_pytree(params)[0].size).astype(np.float32))
    np.testing.assert_allclose(a, c, atol=1e-6)
    np.testing.assert_allclose(b, d, atol=1e-6)


def test_memory_is_bounded_by_the_chunk():
    x, y = batch(4096)
    x = np.tile(x, (1, 20))
    params = {"w": np.zeros((100, 64), np.float32), "b": np.zeros(64, np.float32), "v": np.zeros((64, 3), np.float32)}

    def temporaries(chunk):
        def product(params, x, y):
            op = curvature.hessian(loss_of(plain), params, x, y, chunk=chunk)
            return op.apply(jnp.ones(op.size))

        compiled = jax.jit(product).lower(params, x, y).compile(AS_USERS)
        return compiled.memory_analysis().temp_size_in_bytes

    # Activations of the whole batch are 1 MB each; of a chunk 16 kB.
    assert temporaries(64) < temporaries(None) / 5


def test_runs_under_vmap_are_what_they_are_alone():
    runs = [some(mlp, seed) for seed in range(3)]
    x, y = batch()

    def products(params):
        v = jnp.ones(ravel_pytree(params)[0].size)
        return (
            curvature.hessian(loss_of(mlp), params, x, y, chunk=3).apply(v),
            curvature.gauss_newton(mlp, cross_entropy, params, x, y).apply(v),
        )

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *runs)
    for lanes, *alone in zip(jax.jit(jax.vmap(products))(stacked), *map(jax.jit(products), runs), strict=True):
        np.testing.assert_allclose(lanes, alone, atol=1e-6)
    assert not callbacks(products, runs[0])


def test_trees_of_any_kind_and_leaves_of_size_zero():
    x, y = batch()
    params = some(plain)
    other = (params["w"], [np.zeros((0, 3), np.float32), params["b"]], params["v"])

    def loss(params, x, y):
        return loss_of(plain)({"w": params[0], "b": params[1][1], "v": params[2]}, x, y)

    @jax.jit
    def products(params, other):
        op = curvature.hessian(loss, other, x, y)
        assert op.size == 36
        same = curvature.hessian(loss_of(plain), params, x, y)
        # The order of entries is that of the tree's leaves: w, b, v here, b, v, w there.
        v = jnp.arange(36.0)
        moved = jnp.concatenate([v[20:], v[:20]])
        return op.unravel(v), op.unravel(op.apply(v)), same.unravel(same.apply(moved))

    back, got, expected = products(params, other)
    assert jax.tree.map(np.shape, back) == jax.tree.map(np.shape, other)
    assert back[2][-1, -1] == 35
    for a, b in zip((got[0], got[1][1], got[2]), (expected["w"], expected["b"], expected["v"]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_half_precision_parameters_are_evaluated_in_float32():
    x, y = batch()
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), some(plain))
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    product = jax.jit(lambda params: curvature.hessian(loss_of(plain), params, x, y).apply(jnp.ones(36)))
    assert product(params).dtype == jnp.float32
    np.testing.assert_array_equal(product(params), product(wide))


def test_nan_is_carried():
    x, y = batch()
    x[0, 0] = np.nan

    @jax.jit
    def products(params):
        ops = [curvature.hessian(loss_of(plain), params, x, y, chunk=chunk) for chunk in (None, 2)]
        return [op.apply(jnp.ones(36)) for op in ops]

    assert all(np.isnan(product).any() for product in products(some(plain)))


def test_a_loss_without_a_batch():
    op = curvature.hessian(lambda theta: jnp.sum(jnp.array([1.0, -2, 3]) * theta**2) / 2, np.ones(3, np.float32))
    np.testing.assert_allclose(matrix_of(op), np.diag([1, -2, 3]))
    assert float(curvature.hutchinson_trace(op, KEY, 1).value) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": {"w": np.ones(3, int)}}, r"params\['w'\] is int(32|64)"),
        ({"params": {"w": np.ones(3, complex)}}, r"params\['w'\] is complex"),
        ({"params": {}}, "no entries"),
        ({"params": {"w": np.zeros((0, 2), np.float32)}}, "no entries"),
        ({"y": np.zeros(3, int)}, r"one length along their first axis.*\(7, 5\), \(3,\)"),
        ({"x": np.ones((0, 5), np.float32), "y": np.zeros(0, int)}, "not zero"),
        ({"chunk": 0}, "at least 1, got 0"),
        ({"loss": lambda params, x, y: x[:, 0]}, r"must be a real scalar.*\[7\]"),
        ({"loss": lambda params, x, y: jnp.sum(y)}, "must be a real scalar.*int32"),
    ],
)
def test_bad_input(change, message):
    x, y = batch()
    given = {"loss": lambda params, x, y: jnp.float32(0), "params": some(plain), "x": x, "y": y, "chunk": 2, **change}
    with pytest.raises(UserError, match=message):
        curvature.hessian(given["loss"], given["params"], given["x"], given["y"], chunk=given["chunk"])
