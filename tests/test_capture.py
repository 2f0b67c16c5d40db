"""Taps come out of plain functions and Linen modules, through jit, vmap, gradients and checkpoint; or fail clearly."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.capture import capture, tap
from plasticity.errors import UserError

X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
W = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)), jnp.float32)
PRE = np.asarray(X @ W)


def plain(w, x):
    pre = x @ w
    return jnp.sum(jax.nn.relu(pre) ** 2)


def tapped(w, x):
    pre = tap("pre", x @ w)
    post = tap("post", jax.nn.relu(pre))
    return jnp.sum(post**2)


def check(taps, pre=PRE):
    assert set(taps) == {"pre", "post"}
    np.testing.assert_allclose(taps["pre"], pre, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(taps["post"], np.maximum(pre, 0), rtol=1e-5, atol=1e-6)


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), a, b)


def identity(fn):
    return fn


@pytest.mark.parametrize("inner", [identity, jax.jit, jax.checkpoint, lambda f: jax.jit(jax.checkpoint(jax.jit(f)))])
@pytest.mark.parametrize("gradient", [identity, jax.value_and_grad, jax.grad])
@pytest.mark.parametrize("outer", [identity, jax.jit])
@pytest.mark.parametrize("around", [identity, jax.jit])
def test_value_and_taps_through_transformations(inner, gradient, outer, around):
    result, taps = around(capture(outer(gradient(inner(tapped)))))(W, X)
    close(result, gradient(plain)(W, X))
    check(taps)


def test_taps_come_in_the_order_of_the_program():
    assert list(capture(tapped)(W, X)[1]) == ["pre", "post"]


def test_a_tap_is_the_identity():
    close(tapped(W, X), plain(W, X))
    close(jax.jit(jax.grad(tapped))(W, X), jax.grad(plain)(W, X))
    assert capture(plain)(W, X)[1] == {}


@pytest.mark.parametrize("inner", [identity, jax.jit])
def test_vmap_of_the_captured_function(inner):
    ws = jnp.stack([W, 2 * W, -W])
    values, taps = jax.vmap(capture(inner(tapped)), in_axes=(0, None))(ws, X)
    close(values, jnp.stack([plain(w, X) for w in ws]))
    check(taps, np.stack([PRE, 2 * PRE, -PRE]))


def test_vmap_and_gradients_and_jit_together():
    ws = jnp.stack([W, 2 * W])
    run = jax.jit(jax.vmap(capture(jax.value_and_grad(jax.jit(tapped))), in_axes=(0, None)))
    (values, grads), taps = run(ws, X)
    close(values, jnp.stack([plain(w, X) for w in ws]))
    close(grads, jnp.stack([jax.grad(plain)(w, X) for w in ws]))
    check(taps, np.stack([PRE, 2 * PRE]))


def test_vmap_within_the_captured_function_adds_the_axis():
    _, taps = capture(jax.vmap(tapped, in_axes=(None, 0)))(W, X)
    check(taps)


def test_a_captured_function_can_be_differentiated():
    def loss(w):
        value, taps = capture(jax.jit(tapped))(w, X)
        return value + jnp.sum(taps["pre"])

    close(jax.grad(loss)(W), jax.grad(lambda w: plain(w, X) + jnp.sum(X @ w))(W))


def test_within_a_scan_of_the_caller():
    def step(w, x):
        value, taps = capture(tapped)(w, x[None])
        return w, (value, taps)

    _, (values, taps) = jax.lax.scan(step, W, X)
    check({name: value[:, 0] for name, value in taps.items()})
    close(values, jnp.stack([plain(W, x[None]) for x in X]))


def test_linen_module():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            pre = tap("pre", nn.Dense(4, use_bias=False)(x))
            return nn.Dense(1)(tap("post", nn.relu(pre)))

    for net in (Net(), nn.jit(Net)(), nn.remat(Net)()):
        params = net.init(jax.random.key(0), X)["params"]
        kernel = next(p["kernel"] for name, p in params.items() if name.endswith("Dense_0"))

        def loss(params, net=net):
            return jnp.mean(net.apply({"params": params}, X) ** 2)

        (value, grads), taps = capture(jax.value_and_grad(loss))(params)
        close((value, grads), jax.value_and_grad(loss)(params))
        check(taps, np.asarray(X @ kernel))


def test_one_jitted_function_called_twice_keeps_its_values_apart():
    double = jax.jit(lambda x: x * 2 + np.arange(3.0, dtype=np.float32))

    def fn(x, names=("a", "b")):
        @jax.jit
        def tapping(x):
            return tap(names[0], double(x)), tap(names[1], double(double(x)))

        return tapping(x)

    (a, b), taps = capture(fn)(X)
    close(taps, {"a": a, "b": b})
    shift = np.arange(3)
    np.testing.assert_allclose(b, 4 * X + 3 * shift, rtol=1e-5)


def test_constants_of_an_inlined_program_survive():
    table = np.arange(15, dtype=np.float32).reshape(5, 3)
    result, taps = capture(jax.jit(lambda x: tap("t", x + table) * jnp.asarray(table)))(X)
    np.testing.assert_allclose(taps["t"], X + table)
    np.testing.assert_allclose(result, (X + table) * table, rtol=1e-6)


def test_arguments_may_be_anything_and_results_may_be_trees():
    def fn(x, name, *, flag, options):
        out = tap(name, x) if flag else x
        return {"out": (out, options["scale"] * x)}

    result, taps = capture(fn)(X, "n", flag=True, options={"scale": 3.0})
    close(result, {"out": (X, 3 * X)})
    close(taps, {"n": X})
    assert capture(fn)(X, "n", flag=False, options={"scale": 3.0})[1] == {}


def test_numbers_and_keys_and_unchanged_inputs():
    def fn(key, x):
        return tap("number", 3.0), tap("key", key), tap("x", x), x

    result, taps = capture(fn)(jax.random.key(1), X)
    assert float(taps["number"]) == 3
    assert taps["number"].shape == ()
    np.testing.assert_array_equal(jax.random.key_data(taps["key"]), jax.random.key_data(jax.random.key(1)))
    close(result[2:], (X, X))


def test_foreign_checkpoint_names_are_left_alone():
    def fn(x):
        for _ in range(2):
            x = jax.ad_checkpoint.checkpoint_name(x + 1, "foreign")
        return tap("mine", x)

    assert set(capture(fn)(X)[1]) == {"mine"}


def test_capture_under_jit_traces_once():
    traces = []

    def fn(x):
        traces.append(1)
        return tap("x", x)

    run = jax.jit(capture(fn))
    run(X)
    run(X + 1)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("kind", "fn"),
    [
        ("scan", lambda x: jax.lax.scan(lambda c, r: (c + tap("lost", r), r), x[0], x)),
        ("scan", lambda x: jax.grad(lambda x: jax.lax.scan(lambda c, r: (c + tap("lost", r).sum(), r), 0.0, x)[0])(x)),
        ("while", lambda x: jax.lax.while_loop(lambda x: x.sum() < 0, lambda x: tap("lost", x + 1), x)),
        ("cond", lambda x: jax.lax.cond(x.sum() > 0, lambda: tap("lost", x), lambda: x)),
        ("cond", jax.jit(lambda x: jax.lax.cond(x.sum() > 0, jax.jit(lambda: x * 2), jax.jit(lambda: tap("lost", x))))),
    ],
)
def test_control_flow_keeps_its_values_and_says_so(kind, fn):
    with pytest.raises(UserError, match=rf"tap 'lost' lies within a {kind} "):
        capture(fn)(X)


def test_control_flow_without_taps_is_no_obstacle():
    def fn(x):
        x = tap("x", jax.lax.fori_loop(0, 3, lambda i, x: x + i, x))
        return jax.lax.cond(x.sum() > 1e9, lambda: x, lambda: 2 * x)

    np.testing.assert_allclose(capture(fn)(X)[1]["x"], X + 3, rtol=1e-6)


def test_custom_rules_are_not_silently_dropped():
    @jax.custom_jvp
    def fn(x):
        return tap("inside", 2 * x)

    fn.defjvp(lambda primals, tangents: (tap("inside", 2 * primals[0]), 7 * tangents[0]))
    with pytest.raises(UserError, match=r"tap 'inside' lies within a custom_jvp"):
        capture(fn)(X)
    value, taps = capture(jax.value_and_grad(lambda x: jnp.sum(fn(x))))(X)  # here the rule has been applied
    close(value[1], jnp.full_like(X, 7))
    close(taps, {"inside": 2 * X})


@pytest.mark.parametrize("wrap", [identity, jax.jit])
def test_a_name_reached_twice_is_an_error(wrap):
    fn = wrap(lambda x: tap("same", x) + tap("same", 2 * x))
    with pytest.raises(UserError, match="tap 'same' is reached twice"):
        capture(fn)(X)


@pytest.mark.parametrize("value", [{"a": X}, (X, X), None])
def test_a_tap_takes_one_array(value):
    with pytest.raises(UserError, match="tap 'tree' takes one array"):
        tap("tree", value)
