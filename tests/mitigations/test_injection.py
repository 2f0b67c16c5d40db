"""Plasticity injection and distillation: what happens to the output at the event, and what is trained after it."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import AS_USERS
from lab import EVENT as EVENT_STEP
from lab import batch, method, setting, train

from plasticity.heads import Regression
from plasticity.mitigations import Event, Learner, Setting, compose, mitigations
from plasticity.networks import Architecture, networks
from plasticity.networks.injection import own
from plasticity.networks.target_units import TargetUnits
from plasticity.optimizers import optimizers
from plasticity.rng import named
from plasticity.spec import build, build_one

X = np.random.default_rng(0).normal(size=(5, 6, 6, 2)).astype(np.float32)
KEY = jax.random.key(7)
TX = optimizers.get("adam")(0.01).build()
INJECTION = build("plasticity_injection", mitigations)[0]
CASES = {
    "mlp": ("mlp(6, 2)", {}),
    "dueling, noise": ("mlp(6, 2)", {"dueling": True, "noise": 0.5}),
    "batch norm, crelu": ("mlp(6, 2)", {"normalization": "batch", "activation": "crelu"}),
    "convolution": ("minatar(6, features=3)", {"dueling": True}),
}
every_case = pytest.mark.parametrize("case", CASES)


@lru_cache
def built(case, injectable=True):
    spec, options = CASES[case]
    architecture = Architecture(Regression(-1.0, 1.0), predictions=3, **options)
    architecture = INJECTION.network(architecture) if injectable else architecture
    network = build_one(spec, networks).build(architecture)
    return network, jax.jit(network.apply, compiler_options=AS_USERS)


@lru_cache
def injected(case, number=1, at=1):
    """(variables before, learner after the event, as if trained in between)."""
    network, _ = built(case)
    surroundings = Setting(network, lambda key: network.init(key, X), 0.01, KEY, TX)
    variables = network.init(jax.random.key(0), X)
    variables = {**variables, "params": moved(variables["params"], 1)}
    state = TX.update(variables["params"], TX.init(variables["params"]))[1]
    event = Event(jnp.int32(number), lambda key: X, lambda variables, key: variables["params"])
    member = build(f"plasticity_injection({at})", mitigations)[0]
    happen = jax.jit(lambda learner: member.on_event(jax.random.key(3), learner, surroundings, event))
    return Learner(variables, state), happen(Learner(variables, state))


def moved(params, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: p + 0.3 * jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)


def differing(a, b):
    """How many leaves of two trees differ."""
    return sum(jax.tree.leaves(jax.tree.map(lambda x, y: bool(np.any(x != y)), a, b)))


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@every_case
def test_before_the_injection_the_network_is_the_plain_one_to_the_bit(case):
    (_, apply), (_, plain) = built(case), built(case, injectable=False)
    variables = injected(case)[0].variables
    found, expected = apply(variables, X, KEY), plain(own(variables), X, KEY)
    same(found, expected)
    assert float(variables["frozen"]["active"]) == 0
    fresh = built(case)[0].init(jax.random.key(0), X)
    same(own(fresh), built(case, injectable=False)[0].init(jax.random.key(0), X))


@every_case
@pytest.mark.parametrize("noise", [None, KEY])
def test_the_injection_leaves_the_output_unchanged_to_the_bit(case, noise):
    _, apply = built(case)
    before, after = injected(case)
    assert float(after.variables["frozen"]["active"]) == 1
    same(apply(after.variables, X, noise)[0], apply(before.variables, X, noise)[0])
    # The units that are measured and reset are those of the new network.
    same(apply(after.variables, X, noise)[1], apply(own(after.variables), X, noise)[1])
    assert np.any(np.asarray(apply(own(after.variables), X, noise)[0] != apply(before.variables, X, noise)[0]))


def test_unchanged_to_the_bit_in_a_mapped_group_of_which_one_is_injected():
    network, _ = built("mlp")
    before, after = injected("mlp")
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), before.variables, after.variables)
    mapped = jax.vmap(lambda v: network.apply(v, X)[0])
    found = jax.jit(mapped, compiler_options=AS_USERS)(stacked)
    same(found[0], found[1])
    np.testing.assert_allclose(found[0], network.apply(before.variables, X)[0], rtol=1e-5, atol=1e-6)


@every_case
def test_what_the_event_does_to_the_learner(case):
    network, _ = built(case)
    before, after = injected(case)
    same(after.variables["frozen"]["old"], own(before.variables))
    same(after.variables["frozen"]["anchor"], own(after.variables))
    same(own(after.variables), own(network.init(jax.random.key(3), X)))
    same(after.opt_state, TX.init(after.variables["params"]))
    assert jax.tree.structure(before) == jax.tree.structure(after)


def test_batch_statistics_are_taken_by_all_three_and_kept_by_the_new_one():
    network, _ = built("batch norm, crelu")
    apply = jax.jit(lambda variables, x: network.apply(variables, x, train=True), compiler_options=AS_USERS)
    before, after = injected("batch norm, crelu")
    same(apply(after.variables, X)[0], apply(before.variables, X)[0])
    _, _, state = apply(after.variables, X)
    assert set(state) == {"batch_stats"}
    plain = built("batch norm, crelu", injectable=False)[0].apply(own(after.variables), X, train=True)[2]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state, plain)
    assert differing(state["batch_stats"], after.variables["batch_stats"]) > 0


def test_it_happens_at_the_event_of_that_number_only():
    for number, at in ((2, 1), (1, 2)):
        before, after = injected("mlp", number, at)
        same(after, before)
    assert float(injected("mlp", 2, 2)[1].variables["frozen"]["active"]) == 1


@every_case
def test_afterwards_the_new_network_alone_is_trained(case):
    """f = f_new - f_anchor + f_old of three plain networks; the gradient is f_new's."""
    (network, apply), (plain, plain_apply) = built(case), built(case, injectable=False)
    _, after = injected(case)
    variables = {**after.variables, "params": moved(after.variables["params"], 2)}
    frozen = variables["frozen"]
    new, anchor, old = (plain_apply(v, X, KEY)[0] for v in (own(variables), frozen["anchor"], frozen["old"]))
    np.testing.assert_allclose(apply(variables, X, KEY)[0], new - anchor + old, rtol=1e-5, atol=1e-5)
    weights = np.random.default_rng(4).normal(size=new.shape)
    found = jax.grad(lambda v: jnp.sum(weights * network.apply(v, X, KEY)[0]))(variables)
    expected = jax.grad(lambda v: jnp.sum(weights * plain.apply(v, X, KEY)[0]))(own(variables))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), own(found), expected)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(found["frozen"]))


def test_in_training_the_loss_goes_on_where_it_was_and_the_frozen_networks_stay():
    chosen = method("plasticity_injection")
    learner, losses = jax.jit(lambda: train(chosen, 0, "regression"))()
    _, plain = jax.jit(lambda: train(method(), 0, "regression"))()
    np.testing.assert_allclose(losses[: EVENT_STEP + 1], plain[: EVENT_STEP + 1], rtol=1e-5)
    # Another network is trained from there: its second update is another one.
    assert abs(losses[EVENT_STEP + 1] - plain[EVENT_STEP + 1]) > 1e-6
    frozen = learner.variables["frozen"]
    parts, _, _ = setting(chosen)
    key = named(jax.random.fold_in(parts.key, EVENT_STEP), "plasticity_injection")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7),
        frozen["anchor"],
        own(parts.initializer(key)),
    )
    assert differing(own(learner.variables), frozen["anchor"]) == 6


@pytest.mark.parametrize("name", ["plasticity_injection", "distillation"])
def test_the_scale_of_targets_goes_on(name):
    """It is not the network's: with a fresh one outputs would jump, and nothing could be distilled."""
    x, _ = batch("regression")
    chosen = method(f"popart+{name}")
    parts, _, variables = setting(chosen)
    memory = variables["memory"]["popart"]
    statistics = memory._replace(units=TargetUnits(jnp.float32(5), jnp.float32(3), jnp.float32(1 / 9)))
    variables = {**variables, "params": moved(variables["params"], 1), "memory": {"popart": statistics}}
    learner = Learner(variables, parts.tx.init(variables["params"]))
    event = Event(jnp.int32(1), lambda key: x, lambda variables, key: variables["params"])
    after = jax.jit(lambda learner: compose.on_switch(chosen.mitigations, KEY, learner, parts, event))(learner)
    same(after.variables["memory"], variables["memory"])
    before, now = (np.asarray(parts.network.apply(v, x)[0]) for v in (variables, after.variables))
    np.testing.assert_allclose(now, before, atol=0.0 if name == "plasticity_injection" else 0.5 * before.std())
    assert before.std() > 0.1


def test_mapped_over_seeds_equals_one_by_one():
    """Events that draw networks, in one program for several runs; the number of the event is not mapped."""
    chosen = method("distillation(3)+layer_reset+plasticity_injection")
    one = jax.jit(lambda seed: train(chosen, seed, "regression"))
    group = jax.jit(jax.vmap(lambda seed: train(chosen, seed, "regression")))(jnp.arange(2))
    for seed in range(2):
        jax.tree.map(
            lambda a, b, seed=seed: np.testing.assert_allclose(a[seed], b, rtol=1e-4, atol=1e-5), group, one(seed)
        )
    assert np.all(group[0].variables["frozen"]["active"] == 1)


# Distillation -------------------------------------------------------------------------------------------------------


def distilled(updates, learning_rate, inputs):
    """(setting, key, learner before, learner after) on the lab's network, its output moved away from 0."""
    chosen = method(f"distillation({updates})", f"adam({learning_rate})")
    parts, _, variables = setting(chosen)
    variables = {**variables, "params": moved(variables["params"], 1)}
    learner = Learner(variables, parts.tx.update(variables["params"], parts.tx.init(variables["params"]))[1])
    event = Event(jnp.int32(1), inputs, lambda variables, key: variables["params"])
    key = jax.random.key(5)
    after = jax.jit(lambda learner: compose.on_switch(chosen.mitigations, key, learner, parts, event))(learner)
    return parts, named(key, "distillation"), learner, after


def test_distillation_is_adam_on_the_squared_error_of_outputs():
    """Three updates against a float64 rewrite, each on a batch of its own."""
    shape = batch("regression")[0].shape

    def inputs(key):
        return jax.random.normal(key, shape)

    parts, key, before, after = distilled(3, 0.01, inputs)
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), parts.initializer(named(key, "fresh"))["params"])
    old = jax.tree.map(lambda p: np.asarray(p, np.float64), before.variables["params"])
    m = v = jax.tree.map(np.zeros_like, params)
    layers = ("hidden_0", "hidden_1", "output")

    def forward(params, h):
        seen = [h]
        for name in layers:
            h = h @ params[name]["kernel"] + params[name]["bias"]
            h = h if name == "output" else np.maximum(h, 0)
            seen.append(h)
        return seen

    for t in range(3):
        x = np.asarray(inputs(jax.random.split(jax.random.fold_in(key, t))[0]), np.float64).reshape(shape[0], -1)
        seen, target = forward(params, x), forward(old, x)[-1]
        error, grads = 2 * (seen[-1] - target) / target.size, {}
        for i in (2, 1, 0):
            grads[layers[i]] = {"kernel": seen[i].T @ error, "bias": error.sum(0)}
            error = (error @ params[layers[i]]["kernel"].T) * (seen[i] > 0)
        m = jax.tree.map(lambda a, g: 0.9 * a + 0.1 * g, m, grads)
        v = jax.tree.map(lambda a, g: 0.999 * a + 0.001 * g**2, v, grads)
        params = jax.tree.map(
            lambda p, a, b, t=t: p - 0.01 * (a / (1 - 0.9 ** (t + 1))) / (np.sqrt(b / (1 - 0.999 ** (t + 1))) + 1e-8),
            params,
            m,
            v,
        )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), after.variables["params"], params)


def test_the_fresh_network_learns_to_say_what_the_old_one_said():
    x, _ = batch("regression")
    parts, key, before, after = distilled(200, 0.01, lambda key: x)
    said, again, untrained = (
        parts.network.apply(v, x)[0]
        for v in (before.variables, after.variables, parts.initializer(named(key, "fresh")))
    )
    assert np.mean((again - said) ** 2) < 0.01 * np.mean((untrained - said) ** 2)
    assert differing(before.variables["params"], after.variables["params"]) == 6
    same(after.opt_state, parts.tx.init(after.variables["params"]))
