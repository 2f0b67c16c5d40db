"""Continual backprop: exact counting, an independent rewrite of its bookkeeping, bias transfer, the pool."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity.errors import UserError
from plasticity.heads import Regression
from plasticity.mitigations import Setting
from plasticity.mitigations.continual_backprop import ContinualBackprop, Owed, lowest, owing
from plasticity.networks import Architecture, networks
from plasticity.optimizers import optimizers

ZERO = Owed(*(jnp.zeros((), jnp.int32) for _ in Owed._fields))


def replacements(rate, eligible):
    """What is owed in each update when so many units are eligible in it."""

    def step(owed, n):
        owed = owing(owed, jnp.float32(rate), n)
        return owed, owed.now

    return np.asarray(jax.lax.scan(step, ZERO, jnp.asarray(eligible, jnp.int32))[1])


@pytest.mark.parametrize(("rate", "first"), [(0.2, 5), (0.01, 100), (0.1, 10), (1e-3, 1000), (1.0, 1), (0.0, None)])
def test_the_fraction_owed_is_exact(rate, first):
    """Catalogue, oracle O5: in float32, .01 a hundred times is too little, and in float64 .1 ten times is."""
    found = np.flatnonzero(replacements(rate, np.ones(3000)))
    assert found[:1].tolist() == ([] if first is None else [first - 1])
    assert np.all(np.diff(found) == (first or 1))


@pytest.mark.parametrize("rate", ["0.0001", "0.00000037", "0.0125", "0.7", "1"])
def test_what_is_owed_is_what_fractions_say(rate):
    eligible = np.random.default_rng(0).integers(0, 4000, size=500)
    sums = np.cumsum(eligible.astype(object)) * Fraction(rate)
    whole = np.array([int(s) for s in sums])
    assert replacements(float(rate), eligible).tolist() == np.diff(whole, prepend=0).tolist()


def test_the_lowest_of_those_that_are_eligible_and_of_equal_ones_the_first():
    values = jnp.array([3.0, 1.0, 2.0, 1.0, 0.0, jnp.nan])
    among = jnp.array([True, True, True, True, False, True])
    found = [lowest(values, among, k).astype(int).tolist() for k in (0, 1, 2, 3, 5)]
    assert found == [[0] * 6, [0, 0, 0, 0, 0, 1], [0, 1, 0, 0, 0, 1], [0, 1, 0, 1, 0, 1], [1, 1, 1, 1, 0, 1]]


# The whole rule, against numpy ------------------------------------------------------------------------------------

UNITS, STEPS = {"hidden_0": 6, "hidden_1": 6}, 300
NETWORK = networks.get("mlp")(6, 2).build(Architecture(Regression(-1.0, 1.0)))
X = jnp.asarray(np.random.default_rng(0).normal(size=(STEPS, 8, 4)), jnp.float32)
SETTING = Setting(NETWORK, lambda key: NETWORK.init(key, X[0]), 0.05, jax.random.key(1))


def trained(member, steps=STEPS):
    """Of each update of a loop, stacked: plain gradient descent's parameters, activations, parameters, memory."""
    tx = member.optimizer(optimizers.get("sgd")(0.05).build(), SETTING)

    def loss(params, x):
        outputs, activations, _ = NETWORK.apply({"params": params}, x)
        return jnp.mean(jnp.square(outputs[:, 0] - jnp.sin(3 * x[:, 0]))), activations

    def step(carry, now):
        params, state = carry
        number, x = now
        grads, activations = jax.grad(loss, has_aux=True)(params, x)
        updates, state = tx.update(grads, state, params, activations=activations, step=number)
        after = optax.apply_updates(params, updates)
        plain = jax.tree.map(lambda p, g: p - 0.05 * g, params, grads)
        return (after, state), (plain, activations, after, state.memory)

    params = NETWORK.init(jax.random.key(0), X[0])["params"]
    return jax.jit(lambda: jax.lax.scan(step, (params, tx.init(params)), (jnp.arange(steps), X[:steps]))[1])()


@pytest.mark.parametrize("utility", ["contribution", "zero_contribution", "adaptable"])
def test_ages_utilities_and_the_chosen_are_those_of_an_independent_rewrite_over_300_steps(utility):
    rate, decay, maturity = Fraction("0.015"), 0.98, 5  # so short a life that averages are far from corrected
    member = ContinualBackprop(float(rate), decay, maturity, utility, transfer=False, pool_every=5)
    plain, activations, after, memory = jax.tree.map(np.asarray, trained(member))
    following = {"hidden_0": "hidden_1", "hidden_1": "output"}
    chosen = 0
    for name, n in UNITS.items():
        age, u, mean, owed = np.zeros(n, int), np.zeros(n), np.zeros(n), Fraction(0)
        for t in range(STEPS):
            h, out = activations[name].post[t].astype(float), plain[following[name]]["kernel"][t].astype(float)
            age += 1
            mass = 1 - decay**age
            mean = decay * mean + (1 - decay) * h.mean(0)
            away = h - mean / mass if utility == "zero_contribution" else h
            y = np.abs(away).mean(0) * np.abs(out).sum(1)
            if utility == "adaptable":
                y = y / np.abs(plain[name]["kernel"][t]).mean(0)
            u = decay * u + (1 - decay) * y
            eligible = age > maturity
            owed += rate * int(eligible.sum())
            k, owed = int(owed), owed - int(owed)
            reset = sorted(np.flatnonzero(eligible), key=lambda i: (u / mass)[i])[:k]
            age[reset], u[reset], mean[reset] = 0, 0, 0
            chosen += k
            tracked = memory.layers[name]
            assert tracked.utility.age[t].tolist() == age.tolist()
            np.testing.assert_allclose(tracked.utility.average[t], u, rtol=1e-4, atol=1e-6)
            # The replaced feed nothing; all others are as gradient descent left them, what the replaced sent included.
            assert not np.any(after[following[name]]["kernel"][t][reset])
            kept = np.setdiff1d(np.arange(n), reset)
            np.testing.assert_allclose(after[name]["bias"][t][kept], plain[name]["bias"][t][kept], rtol=1e-5, atol=1e-6)
            assert not np.any(after[name]["bias"][t][reset])
    assert chosen > 30


def test_fresh_weights_are_those_of_a_pool_of_which_no_entry_is_used_twice():
    member = ContinualBackprop(0.2, 0.9, maturity=9, pool_every=10)
    plain, _, after, memory = jax.tree.map(np.asarray, trained(member, 120))
    age = memory.layers["hidden_0"].utility.age
    columns = [(t, i) for t, i in zip(*np.nonzero(age == 0), strict=True)]
    found = [after["hidden_0"]["kernel"][t][:, i] for t, i in columns]
    pools = memory.pool.value["hidden_0"]["kernel"]
    for (t, i), column in zip(columns, found, strict=True):
        np.testing.assert_allclose(column, pools[t][:, i], rtol=1e-5, atol=1e-6)
        assert np.any(np.abs(column - plain["hidden_0"]["kernel"][t][:, i]) > 1e-3)
        start = (t + 1) // 10 * 10  # a pool is drawn for updates 10, 20, ...
        drawn = SETTING.initializer(jax.random.fold_in(SETTING.key, start))["params"]["hidden_0"]["kernel"]
        np.testing.assert_allclose(column, drawn[:, i], rtol=1e-5, atol=1e-6)
    assert len(found) > 20
    assert len({tuple(np.round(column, 5)) for column in found}) == len(found)


def test_a_pool_must_not_outlive_a_unit():
    with pytest.raises(UserError, match=r"pool_every must be at most maturity.* pool_every=12, maturity=10"):
        ContinualBackprop(maturity=10, pool_every=12)


# Bias transfer ----------------------------------------------------------------------------------------------------


def replaced_first_unit(spec_network, shape, transfer, constant=True, **options):
    """(outputs before, outputs after) one replacement of unit 0 of the first layer, whose output is constant: 2."""
    network = spec_network.build(Architecture(Regression(-1.0, 1.0), **options))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(16, *shape)), jnp.float32)
    params = network.init(jax.random.key(0), x)["params"]
    first = network.units[0]
    layer = params[first.name]
    if constant:
        layer["kernel"], layer["bias"] = layer["kernel"].at[..., 0].set(0), layer["bias"].at[0].set(2.0)
    # Its contribution is the smallest of its layer, but not zero.
    for outgoing in first.outgoing:
        module, leaf = outgoing.kernel
        rows = outgoing.rows(jnp.arange(first.units) == 0, params)[:, None]
        params[module][leaf] = jnp.where(rows, 0.01 * params[module][leaf], params[module][leaf])
    # So slow a rate that one unit of the first layer is replaced, and none of the others, which has fewer units.
    counts = {layer.name: layer.units for layer in network.units}
    rate = 1 / counts[first.name]
    assert all(n < counts[first.name] for name, n in counts.items() if name != first.name)
    member = ContinualBackprop(rate + 1e-7, maturity=0, pool_every=1, transfer=transfer)
    tx = member.optimizer(optax.identity(), Setting(network, lambda key: network.init(key, x), 0.1, jax.random.key(1)))
    before, activations, _ = network.apply({"params": params}, x)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(tx.update)(zeros, tx.init(params), params, activations=activations)
    after = optax.apply_updates(params, updates)
    assert np.all(np.asarray(after[first.name]["kernel"])[..., 0].any(0))
    return before, network.apply({"params": after}, x)[0]


@pytest.mark.parametrize(
    ("network", "shape", "options"),
    [
        (networks.get("minatar")(6, features=8), (5, 5, 2), {}),
        (networks.get("minatar")(6, features=8), (5, 5, 2), {"dueling": True, "predictions": 3, "activation": "crelu"}),
    ],
    ids=["conv to dense", "two successors, crelu"],
)
def test_replacing_a_constant_unit_leaves_the_function_unchanged_if_its_mean_is_transferred(network, shape, options):
    before, after = replaced_first_unit(network, shape, transfer=True, **options)
    np.testing.assert_allclose(after, before, atol=2e-6)
    before, after = replaced_first_unit(network, shape, transfer=False, **options)
    assert np.max(np.abs(after - before)) > 1e-3


def test_the_bias_of_a_unit_that_is_replaced_too_is_its_fresh_one():
    """One update replaces everything: biases of hidden layers are fresh, the output's takes all means."""
    params = jax.tree.map(lambda p: p + 0.3, NETWORK.init(jax.random.key(0), X[0])["params"])
    tx = ContinualBackprop(1.0, maturity=0, pool_every=1).optimizer(optax.identity(), SETTING)
    _, activations, _ = NETWORK.apply({"params": params}, X[0])
    updates, state = tx.update(
        jax.tree.map(jnp.zeros_like, params), tx.init(params), params, activations=activations, step=0
    )
    after = optax.apply_updates(params, updates)
    assert not np.any(after["hidden_0"]["bias"])
    assert not np.any(after["hidden_1"]["bias"])
    expected = params["output"]["bias"] + activations["hidden_1"].post.mean(0) @ params["output"]["kernel"]
    np.testing.assert_allclose(after["output"]["bias"], expected, rtol=1e-5)
    assert not np.any(after["hidden_1"]["kernel"])
    assert not np.any(after["output"]["kernel"])
    assert not np.any(state.memory.layers["hidden_0"].mean)
