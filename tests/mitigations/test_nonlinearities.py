"""AID, rational and Fourier nonlinearities: rules, randomness, training, what diagnostics say, resets."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lab import HEADS, batch, method, setting, train
from scipy.optimize import least_squares

from plasticity.activations import DENOMINATOR, NONLINEARITIES, NUMERATOR, rational
from plasticity.diagnostics import units
from plasticity.diagnostics.base import Unmet
from plasticity.mitigations import Context, compose, mitigations
from plasticity.mitigations.recycling import overwrite
from plasticity.network import get_at, norm_affine_mask, set_at
from plasticity.networks import Architecture, networks
from plasticity.spec import build

X = batch("regression")[0]


def network(spec, net="mlp(8, 2)", **options):
    """(network, its variables) with these members; the head of classification."""
    members = compose.canonical(build(spec, mitigations))
    built = build(net, networks)[0].build(
        compose.architecture(members, Architecture(HEADS["classification"], **options))
    )
    return built, built.init(jax.random.key(0), X if net.startswith("mlp") else jnp.ones((1, 10, 10, 2)))


def noise(rows, features, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, features)).astype(np.float32)


# AID ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drop", [0.0, 0.3, 1.0])
def test_aid_draws_one_of_two_branches_whose_mean_evaluation_applies(drop):
    aid = NONLINEARITIES["aid"]
    assert aid.sample is not None
    z = jnp.array([-2.0, 3.0])
    drawn = np.asarray(aid.sample(jax.random.key(0), jnp.broadcast_to(z, (20_000, 2)), drop))
    # z negative: -relu(-z) = z with probability drop, else relu(z) = 0; z positive: 0 with probability drop, else z.
    assert set(np.unique(drawn[:, 0])) <= {-2.0, 0.0}
    assert set(np.unique(drawn[:, 1])) <= {0.0, 3.0}
    assert np.mean(drawn[:, 0] == -2) == pytest.approx(drop, abs=0.015)
    assert np.mean(drawn[:, 1] == 3) == pytest.approx(1 - drop, abs=0.015)
    mean = aid.apply(z, drop)
    np.testing.assert_allclose(mean, [-2 * drop, 3 * (1 - drop)], rtol=1e-6)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.05)


def test_aid_is_random_in_training_with_a_key_only():
    net, variables = network("aid(0.5)")
    assert net.stochastic
    assert not network("leaky_relu")[0].stochastic

    def output(key=None, train=False):
        return np.asarray(net.apply(variables, X, key, train)[0])

    a, b = jax.random.key(1), jax.random.key(2)
    np.testing.assert_array_equal(output(), output(train=True))
    np.testing.assert_array_equal(output(), output(a))  # a key alone is for noisy weights
    np.testing.assert_array_equal(output(a, True), output(a, True))
    assert np.any(output(a, True) != output())
    assert np.any(output(a, True) != output(b, True))
    _, seen, _ = net.apply(variables, X, a, True)
    negative = [np.where(z > 0, h == 0, h != 0) for z, h in (seen["hidden_0"], seen["hidden_1"])]
    assert 0.3 < np.mean(negative[0]) < 0.7
    assert np.mean(negative[0] != negative[1]) > 0.2  # layers draw on their own


def test_aid_trains_on_draws_and_with_drop_zero_as_relu():
    _, drawn_losses = train(method("aid(0.4)"), 0, "regression")
    relu, relu_losses = train(method(), 0, "regression")
    none, none_losses = train(method("aid(0)"), 0, "regression")
    assert np.any(drawn_losses != relu_losses)
    np.testing.assert_allclose(none_losses, relu_losses, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        none.variables["params"],
        relu.variables["params"],
    )
    assert np.all(np.isfinite(drawn_losses))


# Rational -------------------------------------------------------------------------------------------------------


def test_rational_by_hand():
    """(1 + 2 z + z^5) / (1 + |z - 3 z^4|) at z = 2: 37 / 47; at -1: -2 / 5."""
    found = rational(jnp.array([2.0, -1.0, 0.0]), [1.0, 2, 0, 0, 0, 1], [1.0, 0, 0, -3])
    np.testing.assert_allclose(found, [37 / 47, -2 / 5, 1], rtol=1e-6)


def test_rational_starts_near_a_leaky_relu_and_no_other_start_is_much_nearer():
    z = np.linspace(-3, 3, 1201)
    target = np.where(z > 0, z, 0.01 * z)

    def error(coefficients):
        top, bottom = np.polyval(coefficients[5::-1], z), np.polyval([*coefficients[:5:-1], 0.0], z)
        return top / (1 + np.abs(bottom)) - target

    start = np.array([*NUMERATOR, *DENOMINATOR])
    np.testing.assert_allclose(rational(jnp.asarray(z, jnp.float32)) - target, error(start), atol=1e-5)
    largest = np.max(np.abs(error(start)))
    assert largest < 0.0131
    # An independent fit from another start, in the same norm as far as least squares can have it.
    other = least_squares(lambda c: (error(c) * 50) ** 8, [0.03, 0.5, 1, 0.5, 0.3, 0.1, 0, 2, 0, 0.2], max_nfev=3000)
    assert largest < 1.05 * np.max(np.abs(error(other.x)))


def test_rational_has_no_poles_and_a_finite_gradient_wherever_its_coefficients_go():
    z = jnp.linspace(-50, 50, 2001)
    for seed in range(5):
        coefficients = jnp.asarray(noise(10, 1, seed)[:, 0] * 3)
        grads = jax.grad(lambda c: jnp.sum(rational(z, c[:6], c[6:])))(coefficients)
        assert np.all(np.isfinite(rational(z, coefficients[:6], coefficients[6:])))
        assert np.all(np.isfinite(grads))


def test_rational_coefficients_belong_to_a_layer_are_trained_and_left_alone_by_penalties():
    net, variables = network("rational")
    params = variables["params"]
    assert {name for name in params if name.startswith("rational")} == {"rational_hidden_0", "rational_hidden_1"}
    assert len(net.coefficients) == 4
    assert all(len(get_at(params, path)) in (6, 4) for path in net.coefficients)
    mask = norm_affine_mask(params, net)
    assert {name for name, leaf in mask.items() if all(jax.tree.leaves(leaf))} == {
        "rational_hidden_0",
        "rational_hidden_1",
    }
    (l2,) = build("l2(1)", mitigations)
    grads = jax.grad(lambda p: l2.penalty(p, Context(net, variables, {})))(params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads["rational_hidden_0"]))
    after = train(method("rational"), 0, "regression")[0].variables["params"]
    assert np.all(after["rational_hidden_0"]["numerator"] != jnp.array(NUMERATOR))
    # As far as the gradient of |Q| at Q = 0, which is 0, lets them: none of the data lies exactly there.
    assert np.all(after["rational_hidden_1"]["denominator"] != jnp.array(DENOMINATOR))


def test_rational_in_a_network_with_streams_of_its_own_and_in_bfloat16():
    architecture = Architecture(HEADS["classification"], activation="rational")
    net, x = build("impala(8, dtype=bfloat16)", networks)[0].build(architecture), jnp.ones((1, 10, 10, 2))
    variables = jax.eval_shape(net.init, jax.random.key(0), x)
    names = {path[0] for path in net.coefficients}
    assert names == {name for name in variables["params"] if name.startswith("rational")}
    assert "rational_stream" in names
    _, seen, _ = jax.eval_shape(lambda variables: net.apply(variables, x), variables)
    assert all(a.post.dtype == jnp.bfloat16 for a in seen.values())


# What a reset of units leaves alone --------------------------------------------------------------------------------


def test_resets_leave_shared_coefficients_alone():
    net, variables = network("rational")
    params = jax.tree.map(lambda p: p + 1.0, variables["params"])
    masks = {layer.name: jnp.ones(8, bool) for layer in net.units}
    recycled, touched = overwrite(params, variables["params"], masks, net.units)
    for path in net.coefficients:
        np.testing.assert_array_equal(get_at(recycled, path), get_at(params, path))
        assert not np.any(get_at(touched, path))


@pytest.mark.parametrize(
    ("spec", "kept"), [("swish", True), ("elu", True), ("aid(0.3)", True), ("fourier", False), ("rational", False)]
)
def test_a_unit_that_gets_nothing_is_recycled_for_nothing_where_phi_of_zero_is_zero(spec, kept):
    """To the bit. cos 0 is 1 and the rational start gives .013 at 0: there the next layer loses a constant."""
    net, variables = network(spec)
    mask = jnp.arange(8) == 3
    params = variables["params"]
    for path in (("hidden_0", "kernel"), ("hidden_0", "bias")):
        params = set_at(params, path, jnp.where(mask, 0.0, get_at(params, path)))
    fresh = net.init(jax.random.key(1), X)["params"]
    recycled, _ = overwrite(params, fresh, {"hidden_0": mask, "hidden_1": jnp.zeros(8, bool)}, net.units)
    before, after = (np.asarray(net.apply({"params": p}, X)[0]) for p in (params, recycled))
    assert np.array_equal(before, after) == kept


def test_fourier_features_have_a_constant_norm_and_pass_all_of_the_gradient():
    net, variables = network("fourier")
    _, seen, _ = net.apply(variables, X)
    for activation in seen.values():
        assert activation.post.shape[-1] == 16
        np.testing.assert_allclose(np.linalg.norm(activation.post, axis=-1), 8**0.5, rtol=1e-5)
        _, slope = jax.jvp(lambda z: NONLINEARITIES["fourier"].apply(z, 0.0), (activation.pre,), (jnp.ones((16, 8)),))
        np.testing.assert_allclose(slope[:, :8] ** 2 + slope[:, 8:] ** 2, 1, rtol=1e-5)


# Diagnostics ----------------------------------------------------------------------------------------------------


def pair(pre, activation, slope=0.25):
    pre = jnp.asarray(pre, jnp.float32)
    return pre, NONLINEARITIES[activation].apply(pre, slope), activation


def test_aid_is_dead_at_zero_only_and_linear_where_its_mean_is():
    pre = noise(400, 4) + np.array([0, 100, -100, 0], np.float32)
    pre[:, 3] = 0
    np.testing.assert_array_equal(units.dead_mask(None, *pair(pre, "aid")[1:]), [0, 0, 0, 1])
    np.testing.assert_array_equal(units.linearized_mask(*pair(pre, "aid")), [0, 1, 1, 0])
    np.testing.assert_array_equal(units.linearized_mask(*pair(pre, "aid", 0.5)), [1, 1, 1, 0])
    np.testing.assert_array_equal(units.dead_mask(*pair(pre, "aid", 0.0)), [0, 0, 1, 1])  # that is ReLU


def test_fourier_is_never_dead_and_hardly_linear():
    pre = noise(400, 4) * np.array([1, 10, 1e-3, 0], np.float32) + np.array([0, 0, 1, 0.5], np.float32)
    assert not np.any(units.dead_mask(*pair(pre, "fourier")))
    assert not np.any(units.dormant_mask(pair(pre, "fourier")[1], 0.025, "fourier"))
    np.testing.assert_array_equal(units.linearized_mask(*pair(pre, "fourier")), [0, 0, 1, 1])
    with pytest.raises(Unmet):
        units.positive_share(None, pair(pre, "fourier")[1], "fourier")
    np.testing.assert_allclose(units.positive_share(*pair(pre, "fourier")), np.mean(pre > 0, axis=0), rtol=1e-6)


def test_swish_and_elu_die_far_on_the_negative_side():
    pre = noise(100, 3) + np.array([0, -200, 200], np.float32)
    for name in ("swish", "elu"):
        np.testing.assert_array_equal(units.dead_mask(*pair(pre, name)), [0, 1, 0])
        np.testing.assert_array_equal(units.linearized_mask(*pair(pre, name)), [0, 0, 1])


def test_rational_is_read_from_what_it_does():
    """Unit 0 as it starts; unit 1 moves and nothing follows; unit 2 stands still, which says nothing; 3 is linear."""
    pre = noise(100, 4)
    pre[:, 2] = 0.5
    post = np.array(rational(jnp.asarray(pre)))
    post[:, 1], post[:, 3] = 0.7, 2 * pre[:, 3] + 1
    np.testing.assert_array_equal(units.dead_mask(pre, post, "rational"), [0, 1, 0, 0])
    np.testing.assert_array_equal(units.linearized_mask(pre, post, "rational"), [0, 0, 1, 1])
    assert not np.any(units.dead_mask(pre[:1], post[:1], "rational"))
    with pytest.raises(Unmet, match="preactivations"):
        units.dead_mask(None, post, "rational")


def test_what_is_signed_has_the_sign_of_its_input():
    z = jnp.array([-30.0, -2.0, -1e-3, 0.0, 1e-3, 2.0, 30.0])
    for name, phi in NONLINEARITIES.items():
        positive = np.asarray(phi.apply(z, 0.25))[: len(z)] > 0
        assert np.array_equal(positive, z > 0) == phi.signed, name


def test_members_are_the_nonlinearities():
    for name in NONLINEARITIES:
        (member,) = build(name, mitigations)
        chosen = member.network(Architecture(HEADS["regression"]))
        assert chosen.activation == name
        assert dataclasses.replace(chosen, activation="relu", slope=0.01) == Architecture(HEADS["regression"])
    assert setting(method("aid(0.3)"))[0].network.activation == "aid"
