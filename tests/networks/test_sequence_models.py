"""Transformer and linear recurrence: causality, the forward pass against numpy, tokens, options and mitigations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_networks import build, group_equals_singles, randomised

from plasticity import curvature
from plasticity.diagnostics import diagnose
from plasticity.errors import UserError
from plasticity.heads import Regression, Softmax
from plasticity.mitigations.penalties import last_features
from plasticity.network import norm_affine_mask
from plasticity.networks.attention import rotated
from plasticity.networks.linear_recurrence import drawn_rates
from plasticity.probes.fitting import opened

TOKENS, POSITIONS = 7, 6
HEAD = Softmax(TOKENS)
SPECS = {
    "transformer": "transformer(8, 2, heads=2, expansion=3)",
    "linear_recurrence": "linear_recurrence(8, 2, expansion=3)",
}
RNG = np.random.default_rng(0)
X = RNG.integers(0, TOKENS, (3, POSITIONS)).astype(np.int32)
every_model = pytest.mark.parametrize("name", SPECS)
OPTIONS = {
    "plain": {},
    "layer norm crelu": {"normalization": "layer", "activation": "crelu"},
    "dueling": {"dueling": True, "predictions": 3},
    "batch norm": {"normalization": "batch"},
}


def model(name, predictions=1, depth=2, **options):
    return build(SPECS[name].replace("8, 2", f"8, {depth}"), HEAD, predictions=predictions, **options)


# Sizes --------------------------------------------------------------------------------------------------------------

SIZES = [
    # tokens 65 x 64; two blocks of 4 (64 x 64 + 64), 64 x 256 + 256, 256 x 64 + 64 and two norms; norm; output
    ("transformer", 4_160 + 2 * (16_640 + 16_640 + 16_448 + 256) + 128 + 4_225),
    # and a rate for each feature of each block
    ("linear_recurrence", 4_160 + 2 * (16_640 + 64 + 16_640 + 16_448 + 256) + 128 + 4_225),
]


@pytest.mark.parametrize(("spec", "expected"), SIZES)
def test_number_of_parameters_by_hand(spec, expected):
    found = jax.eval_shape(build(spec, Softmax(65), predictions=1).init, jax.random.key(0), X)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(found)) == expected


@every_model
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_output_a_position(name, dtype):
    network = build(SPECS[name].replace(")", f", dtype={dtype})"), HEAD, predictions=2)
    variables = randomised(network, X)
    output, activations, state = network.apply(variables, X.astype(np.uint8))  # tokens, not grey levels
    assert (output.shape, output.dtype, state) == ((3, POSITIONS, 2 * TOKENS), jnp.float32, {})
    assert network.sequence
    assert {key: a.post.shape for key, a in activations.items()} == {
        "block_0": (3, POSITIONS, 24),
        "block_1": (3, POSITIONS, 24),
        "features": (3, POSITIONS, 8),
    }
    assert {a.dtype for pair in activations.values() for a in pair} == {jnp.dtype(dtype)}
    expected = build(SPECS[name], HEAD, predictions=2).apply(variables, X)[0]
    np.testing.assert_allclose(output, expected, atol=1e-5 if dtype == "float32" else 0.1)


# Causality ----------------------------------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("option", ["plain", "layer norm crelu", "dueling", "batch norm"])
def test_a_token_changes_no_output_before_it_and_its_own(name, option):
    network = model(name, **OPTIONS[option])
    variables = network.init(jax.random.key(0), X) | randomised(network, X)
    apply = jax.jit(lambda x: network.apply(variables, x)[0])
    before = np.asarray(apply(X))
    for t in range(POSITIONS):
        changed = X.copy()
        changed[:, t] = (changed[:, t] + 1) % TOKENS
        moved = np.abs(np.asarray(apply(changed)) - before).max(-1) > 0
        assert not np.any(moved[:, :t])
        assert np.all(moved[:, t])
        assert np.any(moved[:, t + 1 :]) or t == POSITIONS - 1


@every_model
def test_the_number_of_positions_is_free_and_a_prefix_has_the_outputs_of_the_whole(name):
    network = model(name, depth=1)
    variables = randomised(network, X)
    apply = jax.jit(lambda v, x: network.apply(v, x)[0])
    longer = RNG.integers(0, TOKENS, (2, 3 * POSITIONS)).astype(np.int32)
    whole = apply(variables, longer)
    for n in (1, POSITIONS):
        np.testing.assert_allclose(apply(variables, longer[:, :n]), whole[:, :n], rtol=1e-4, atol=1e-5)


@every_model
def test_norms_are_of_one_position(name):
    """Layer norm over positions too would look ahead: each position's preactivations have mean 0 and deviation 1."""
    network = model(name, normalization="layer")
    variables = randomised(network, X)
    for i in range(2):
        variables["params"][f"norm_block_{i}"] = {"scale": jnp.ones(24), "bias": jnp.zeros(24)}
    pre = np.asarray(network.apply(variables, X)[1]["block_1"].pre)
    np.testing.assert_allclose(pre.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(pre.std(-1), 1, rtol=1e-3)


# The forward pass ---------------------------------------------------------------------------------------------------


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def rewrite(name, params, options, heads=2):
    """In float64 numpy, one sequence after the other, one position after the other."""
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)

    def norm(name, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * params[f"norm_{name}"]["scale"] + params[f"norm_{name}"]["bias"]

    def dense(name, x):
        return x @ params[name]["kernel"] + params[name]["bias"]

    def activate(name, z):
        z = norm(name, z) if "normalization" in options else z
        if options.get("activation") == "crelu":
            return np.concatenate([np.maximum(z, 0), np.maximum(-z, 0)], -1)
        return np.maximum(z, 0)

    def turned(x, t):
        """Complex numbers in the place of pairs of features."""
        half = len(x) // 2
        z = (x[:half] + 1j * x[half:]) * np.exp(1j * t * 10_000.0 ** (-np.arange(half) / half))
        return np.concatenate([z.real, z.imag])

    def attention(block, y):
        q, k, v = (dense(f"{block}_{part}", y).reshape(len(y), heads, -1) for part in ("query", "key", "value"))
        found = np.zeros(v.shape)
        for h in range(heads):
            for t in range(len(y)):
                scores = [turned(q[t, h], t) @ turned(k[s, h], s) / q.shape[-1] ** 0.5 for s in range(t + 1)]
                weights = np.exp(scores) / np.sum(np.exp(scores))
                found[t, h] = weights @ v[: t + 1, h]
        return dense(f"{block}_projection", found.reshape(len(y), -1))

    def gated(block, y):
        u, h, found = dense(f"{block}_value", y), 0.0, []
        r, i = (sigmoid(dense(f"{block}_{gate}_gate", u)) for gate in ("recurrence", "input"))
        for t in range(len(y)):
            a = (1 + np.exp(params[f"{block}_decay"]["rate"])) ** (-8 * r[t])
            h = a * h + np.sqrt(1 - a**2) * i[t] * u[t]
            found.append(h)
        return dense(f"{block}_projection", np.array(found))

    def outputs(tokens):
        x = params["tokens"]["table"][tokens]
        for i in range(2):
            block = f"block_{i}"
            x = x + (attention if name == "transformer" else gated)(block, norm(f"{block}_mix", x))
            x = x + dense(f"{block}_out", activate(block, dense(block, norm(f"{block}_stream", x))))
        x = norm("features", x)
        if "dueling" not in options:
            return dense("output", x)
        value, advantage = (
            dense(f"{s}_output", activate(f"{s}_hidden", dense(f"{s}_hidden", x))) for s in ("value", "advantage")
        )
        advantage = advantage.reshape(len(x), 3, TOKENS)
        return (value[:, None] + advantage - advantage.mean(1, keepdims=True)).reshape(len(x), -1)

    return np.stack([outputs(tokens) for tokens in X])


@every_model
@pytest.mark.parametrize("option", ["plain", "layer norm crelu", "dueling"])
def test_forward_pass_against_a_rewrite(name, option):
    network = model(name, **OPTIONS[option])
    variables = randomised(network, X)
    found = jax.jit(network.apply)(variables, X)[0]
    np.testing.assert_allclose(found, rewrite(name, variables["params"], OPTIONS[option]), rtol=1e-3, atol=1e-3)


def test_both_forms_of_the_recurrence_give_the_same_network():
    scan, associative = (build(f"linear_recurrence(8, form={form})", HEAD) for form in ("scan", "associative"))
    variables = randomised(scan, X)
    np.testing.assert_allclose(scan.apply(variables, X)[0], associative.apply(variables, X)[0], rtol=1e-4, atol=1e-5)


def test_rotary_products_depend_on_distances_only():
    q, k = RNG.normal(size=(2, 1, 8))
    turned_q, turned_k = (np.asarray(rotated(jnp.asarray(np.repeat(v, 9, axis=0), jnp.float32))) for v in (q, k))
    products = turned_q @ turned_k.T
    for distance in range(-3, 4):
        np.testing.assert_allclose(np.ptp(np.diagonal(products, distance)), 0, atol=1e-4)
    assert np.ptp(np.diagonal(products)) < 1e-4 < np.ptp(products[0])
    np.testing.assert_allclose(np.linalg.norm(turned_q, axis=-1), np.linalg.norm(q), rtol=1e-5)
    # By hand: two features turn by the position itself.
    np.testing.assert_allclose(rotated(jnp.ones((3, 2)))[2], [np.cos(2) - np.sin(2), np.cos(2) + np.sin(2)], rtol=1e-5)


def test_decays_are_uniform_at_the_start():
    decays = np.exp(-8 * np.log1p(np.exp(np.asarray(drawn_rates(jax.random.key(0), (4000,)), np.float64))))
    assert 0.9 <= decays.min() < 0.901
    assert 0.998 < decays.max() <= 0.999 + 1e-6
    np.testing.assert_allclose(np.quantile(decays, [0.25, 0.5, 0.75]), [0.92475, 0.9495, 0.97425], atol=4e-3)


def test_a_gate_that_is_shut_has_a_finite_gradient():
    """a = 1 exactly: the root of 1 - a^2 has no derivative there."""
    network = model("linear_recurrence")
    variables = randomised(network, X)
    variables["params"]["block_0_recurrence_gate"]["bias"] = jnp.full(8, -200.0)

    def loss(variables):
        return jnp.sum(jnp.square(network.apply(variables, X)[0]))

    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(variables)))


# Inputs -------------------------------------------------------------------------------------------------------------


@every_model
def test_what_is_no_token_task_is_a_clear_error(name):
    for head in (Regression(-1.0, 1.0),):
        with pytest.raises(UserError, match=f"{name} predicts the next token: .* not Regression"):
            build(SPECS[name], head)
    for x in (np.zeros((2, 5), np.float32), np.zeros((2, 8, 8, 1), np.uint8)):
        with pytest.raises(
            UserError, match=r"needs tokens, integers \[batch, positions\], got (float32|uint8) of shape"
        ):
            shapes_of(model(name), x)


def shapes_of(network, x):
    return jax.eval_shape(network.init, jax.random.key(0), x)


def test_heads_must_leave_pairs_of_features():
    with pytest.raises(UserError, match=r"width must be a multiple of 2 x heads.* got width=12, heads=4"):
        build("transformer(12, heads=4)", HEAD)


@every_model
def test_a_number_that_is_no_token_gives_nan(name):
    """In its sequence, from there on at least, and in no other one."""
    network = model(name)
    variables = randomised(network, X)
    apply = jax.jit(lambda x: network.apply(variables, x)[0])
    for wrong in (TOKENS, -1):
        x = X.copy()
        x[1, 3] = wrong
        found = np.isnan(apply(x))
        assert np.all(found[1, 3:])
        assert not np.any(found[[0, 2]])


def test_penalties_leave_the_rates_of_a_recurrence_alone():
    network = model("linear_recurrence")
    params = randomised(network, X)["params"]
    mask = norm_affine_mask(params, network)
    found = {path[0].key for path, m in jax.tree_util.tree_leaves_with_path(mask) if m}
    assert found == {name for name in params if name.startswith("norm_") or name.endswith("_decay")}


# Learning and measuring ---------------------------------------------------------------------------------------------


@every_model
def test_it_learns_to_say_what_was_there_two_positions_ago(name):
    """Which needs the mixing of positions. Chance is log 7 = 1.95 nats."""
    network = build(SPECS[name].replace("8, 2", "16, 2"), HEAD, predictions=1)
    x = np.random.default_rng(1).integers(0, TOKENS, (300, 16, 12)).astype(np.int32)
    tx = optax.adam(1e-2)

    def step(carry, x):
        params, state = carry

        def loss(params):
            return jnp.mean(HEAD.loss(network.apply({"params": params}, x)[0][:, 2:], x[:, :-2]))

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state)
        return (optax.apply_updates(params, updates), state), value

    params = network.init(jax.random.key(0), x[0])["params"]
    _, losses = jax.jit(lambda params: jax.lax.scan(step, (params, tx.init(params)), x))(params)
    assert losses[0] > 1.5
    assert np.mean(losses[-20:]) < 1.2


@every_model
def test_a_group_of_runs_equals_single_runs(name):
    group_equals_singles(model(name, depth=1), X, HEAD, RNG.integers(0, TOKENS, X.shape))


@every_model
def test_diagnostics_and_penalties_take_positions_as_rows(name):
    network = model(name, depth=1)
    variables = randomised(network, X)
    _, activations, _ = network.apply(variables, X)
    found = diagnose(activations=activations, params=variables["params"], choose=("dead_units", "stable_rank"))
    post = np.asarray(activations["block_0"].post).reshape(-1, 24)
    np.testing.assert_allclose(found["dead_units/block_0"], np.mean(np.all(post == 0, axis=0)), atol=1e-6)
    singular = np.linalg.svd(post, compute_uv=False)
    np.testing.assert_allclose(found["stable_rank/block_0"], np.sum(singular**2) / singular[0] ** 2, rtol=1e-3)
    (features,) = last_features(network, activations, "test")
    np.testing.assert_array_equal(features, np.asarray(activations["features"].post).reshape(-1, 8))


@every_model
def test_probes_read_the_last_position(name):
    network = model(name, depth=1)
    variables = randomised(network, X)
    forward, params = opened(network, variables)
    np.testing.assert_allclose(forward(params, X), network.apply(variables, X)[0][:, -1], rtol=1e-5)


@every_model
def test_curvature_and_kernels_can_be_traced(name):
    """Hessian (the gradient differentiated forwards), tangent kernel and gradients of single examples."""
    network = model(name, depth=1)
    params = randomised(network, X)["params"]

    def read(params):
        return curvature.readings(
            lambda outputs, y: jnp.mean(HEAD.loss(outputs, y)),
            lambda params, x: network.apply({"params": params}, x)[0],
            params,
            X,
            X,
            jax.random.key(0),
            order=3,
            samples=1,
            inputs=2,
        )

    assert all(value.shape == () for value in jax.eval_shape(read, params).values())
