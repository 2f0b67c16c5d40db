"""ReDo: scores, the order of overwriting, the optimiser's state of what is touched, and dead networks that recover."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from lab import batch, method, setting

from plasticity.diagnostics.units import dormant_mask
from plasticity.heads import Softmax
from plasticity.mitigations import Setting
from plasticity.mitigations.recycling import overwrite
from plasticity.mitigations.redo import Redo
from plasticity.mitigations.weight_decay import WeightDecay
from plasticity.network import get_at
from plasticity.networks import Architecture, networks
from plasticity.optimizers import optimizers

X, Y = batch("regression")


# Which units are dormant: what redo takes from the diagnostics ----------------------------------------------------


def dormant(post, tau, activation="relu"):
    return dormant_mask(jnp.asarray(post, jnp.float32), tau, activation).tolist()


def test_dormant_by_hand():
    """Catalogue, oracle O3: rows (0, 1, 3), (0, 1, 1) have scores 0, 1, 2; at tau 1 two of three are dormant."""
    rows = [[0, 1, 3], [0, 1, 1]]
    assert dormant(rows, 1.0) == [True, True, False]
    assert dormant(rows, 0.99) == dormant(rows, 0.0) == [True, False, False]
    assert dormant(rows, -1.0) == [False, False, False]


def test_positions_of_a_feature_map_are_rows():
    maps = np.abs(np.random.default_rng(0).normal(size=(2, 2, 2, 3))) * [0.1, 1, 2]
    assert dormant(maps, 0.5) == dormant(maps.reshape(8, 3), 0.5) == [True, False, False]


def test_in_a_layer_of_zeros_all_units_are_dormant():
    assert dormant(np.zeros((4, 3)), 0.0) == [True] * 3


def test_a_crelu_unit_is_dormant_if_both_of_its_features_are():
    """Unit 0 fires on the negative side only, unit 1 on neither."""
    pre = np.array([[-2.0, 0, 1], [-2, 0, 1]])
    post = np.concatenate([np.maximum(pre, 0), np.maximum(-pre, 0)], -1)
    assert dormant(post, 0.0, "crelu") == [False, True, False]


# Overwriting ------------------------------------------------------------------------------------------------


def deep(activation, normalization="none"):
    return networks.get("mlp")(6, 3).build(Architecture(Softmax(4), normalization, activation))


def random_like(tree, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), tree)


DEAD = {"hidden_0": [0, 2], "hidden_1": [0, 1, 5], "hidden_2": [3]}
MASKS = {name: jnp.isin(jnp.arange(6), jnp.array(units)) for name, units in DEAD.items()}


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "gelu", "tanh", "crelu"])
def test_recycling_dead_units_in_consecutive_layers_leaves_the_function_unchanged_to_the_bit(activation):
    """Dead for every nonlinearity: nothing comes in. The weights between two recycled units must end as zeros."""
    net = deep(activation)
    params = random_like(net.init(jax.random.key(0), X)["params"], 1)
    for name, units in DEAD.items():
        params[name] = {
            "kernel": params[name]["kernel"].at[:, units].set(0),
            "bias": params[name]["bias"].at[jnp.array(units)].set(0),
        }
    fresh = random_like(params, 2)
    recycled, _ = overwrite(params, fresh, MASKS, net.units)
    before, _, _ = net.apply({"params": params}, X)
    after, activations, _ = net.apply({"params": recycled}, X)
    np.testing.assert_array_equal(after, before)
    for name, units in DEAD.items():  # ... though they are alive now
        assert np.all(np.asarray(activations[name].pre)[:, units] != 0)


@pytest.mark.parametrize(("activation", "normalization"), [*itertools.product(["relu", "crelu"], ["none", "layer"])])
def test_exactly_the_entries_of_recycled_units_change_and_are_touched(activation, normalization):
    net = deep(activation, normalization)
    params = random_like(net.init(jax.random.key(0), X)["params"], 1)
    fresh = random_like(params, 2)
    recycled, touched = overwrite(params, fresh, MASKS, net.units)

    # Entry by entry, written down independently of the unit graph.
    expected = jax.tree.map(lambda p: np.array(p), params)
    marks = jax.tree.map(lambda p: np.zeros(p.shape, bool), params)
    for i, units in enumerate(DEAD.values()):
        places = [(f"hidden_{i}", "kernel"), (f"hidden_{i}", "bias")]
        if normalization == "layer":
            places += [(f"norm_hidden_{i}", "scale"), (f"norm_hidden_{i}", "bias")]
        for (module, leaf), u in itertools.product(places, units):
            expected[module][leaf][..., u] = fresh[module][leaf][..., u]
            marks[module][leaf][..., u] = True
    for i, units in enumerate(DEAD.values()):
        after = "output" if i == 2 else f"hidden_{i + 1}"
        for u, half in itertools.product(units, (0, 6) if activation == "crelu" else (0,)):
            expected[after]["kernel"][u + half] = 0
            marks[after]["kernel"][u + half] = True
    jax.tree.map(np.testing.assert_array_equal, recycled, expected)
    jax.tree.map(np.testing.assert_array_equal, touched, marks)


# The wrapper ------------------------------------------------------------------------------------------------

EVERY = 3
ADAM = optimizers.get("adam")(lr=0.01)
INNER = {
    "suite adam": lambda: ADAM.build(per_entry=True),
    "chain(clip, adam)": lambda: optax.chain(optax.clip_by_global_norm(1.0), ADAM.build(per_entry=True)),
    "sgd momentum": lambda: optimizers.get("sgd")(lr=0.1, momentum=0.9).build(per_entry=True),
    "weight_decay": lambda: WeightDecay(0.3).optimizer(ADAM.build(per_entry=True), half_dead()[0]),
    "optax adam": lambda: optax.adam(0.01),
}


def half_dead():
    """(setting without an optimiser, parameters with units 0 and 1 of the first and 1 of the second layer dead)."""
    parts, _, variables = setting(method())
    params = variables["params"]
    for name, units in {"hidden_0": [0, 1], "hidden_1": [1]}.items():
        params[name]["bias"] = params[name]["bias"].at[jnp.array(units)].set(-1e3)
    return parts, params


def moments(state):
    """Leaves of an optimiser state that are shaped like the parameters, as trees by position."""
    trees = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, dict))
    return [tree for tree in trees if isinstance(tree, dict)]


def updates_of(tx, params, count, network):
    """(updates, state) of each of `count` updates, without applying them."""
    state, found, update = tx.init(params), [], jax.jit(tx.update)
    _, activations, _ = network.apply({"params": params}, X)
    for i in range(count):
        grads = jax.tree.map(lambda p, i=i: jnp.ones_like(p) * (i + 1), params)
        updates, state = update(grads, state, params, activations=activations)
        found.append((updates, state))
    return found


@pytest.mark.parametrize("inner", INNER)
def test_nothing_happens_when_it_is_not_due_and_only_to_the_dead_when_it_is(inner):
    parts, params = half_dead()
    network = parts.network
    inside = optax.with_extra_args_support(INNER[inner]())
    tx = Redo(tau=0.0, every=EVERY).optimizer(inside, parts)
    wrapped = updates_of(tx, params, EVERY, network)
    plain = updates_of(inside, params, EVERY, network)

    for (updates, state), (expected, _) in zip(wrapped[:-1], plain[:-1], strict=True):
        jax.tree.map(np.testing.assert_array_equal, updates, expected)
        assert int(state.count) < EVERY

    _, activations, _ = network.apply({"params": params}, X)
    masks = {layer.name: ~np.any(np.asarray(activations[layer.name].post) > 0, 0) for layer in network.units}
    assert [int(m.sum()) for m in masks.values()] == [2, 1]
    _, touched = overwrite(params, params, masks, network.units)
    (updates, state), (expected, unreset) = wrapped[-1], plain[-1]
    recycled = optax.apply_updates(params, updates)
    fresh = parts.initializer(jax.random.fold_in(parts.key, EVERY))["params"]
    target, _ = overwrite(optax.apply_updates(params, expected), fresh, masks, network.units)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), recycled, target)
    assert not np.any(get_at(recycled, ("hidden_1", "kernel"))[:2])  # outgoing weights are zero without rounding
    jax.tree.map(lambda u, e, m: np.testing.assert_array_equal(u[~m], e[~m]), updates, expected, touched)

    reset, kept = moments(state.inner), moments(unreset)
    assert len(reset) == len(kept) >= 1
    for a, b in zip(reset, kept, strict=True):
        jax.tree.map(lambda x, y, m: np.testing.assert_array_equal(x, np.where(m, 0, y)), a, b, touched)


def test_the_step_of_the_run_decides_when_it_is_given():
    """Unbatched under vmap, unlike the state's own count."""
    parts, params = half_dead()
    tx = Redo(tau=0.0, every=EVERY).optimizer(ADAM.build(per_entry=True), parts)
    _, activations, _ = parts.network.apply({"params": params}, X)
    grads = jax.tree.map(jnp.zeros_like, params)
    update = jax.jit(tx.update)
    for step, due in ((0, False), (1, False), (2, True), (3, False), (5, True)):
        updates, _ = update(grads, tx.init(params), params, activations=activations, step=step)
        assert any(np.any(u != 0) for u in jax.tree.leaves(updates)) == due


def test_fresh_weights_differ_from_reset_to_reset():
    parts, params = half_dead()
    tx = Redo(tau=0.0, every=EVERY).optimizer(ADAM.build(per_entry=True), parts)
    _, activations, _ = parts.network.apply({"params": params}, X)
    grads = jax.tree.map(jnp.zeros_like, params)
    # From a renewed state, as after a full reset: the step of the run still tells the draws apart.
    update = jax.jit(tx.update)
    draws = [
        update(grads, tx.init(params), params, activations=activations, step=step)[0]["hidden_0"]["kernel"][:, 0]
        for step in (EVERY - 1, 2 * EVERY - 1)
    ]
    assert np.all(draws[0] != draws[1])


# Training ---------------------------------------------------------------------------------------------------


def fit(tx, network, params, steps=60):
    """(share of units alive, loss) after training on the batch with a plain optax loop."""

    def loss_fn(params):
        outputs, activations, _ = network.apply({"params": params}, X)
        return jnp.mean(jnp.square(outputs[:, 0] - Y)), activations

    @jax.jit
    def step(params, state):
        (_, activations), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, state = tx.update(grads, state, params, activations=activations)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    loss, activations = loss_fn(params)
    alive = np.concatenate([np.any(np.asarray(a.post) > 0, 0) for a in activations.values()])
    return alive.mean(), float(loss)


@pytest.mark.parametrize(
    "inner", [lambda: optax.adam(0.01), lambda: ADAM.build(per_entry=True)], ids=["optax", "suite"]
)
def test_a_network_with_dead_units_recovers_in_a_plain_optax_loop(inner):
    """As in anybody's program: a network record, an optax optimiser, one wrapper, and `activations=` in the update."""
    network = networks.get("mlp")(8, 2).build(Architecture(Softmax(1)))
    params = network.init(jax.random.key(0), X)["params"]
    bias = jnp.where(jnp.arange(8) < 6, -1e3, 0.0)
    params["hidden_0"]["bias"] = params["hidden_1"]["bias"] = bias
    alone = inner()
    surroundings = Setting(network, lambda key: network.init(key, X), 0.01, jax.random.key(1))
    alive, loss = fit(Redo(tau=0.0, every=10).optimizer(alone, surroundings), network, params)
    alive_without, loss_without = fit(optax.with_extra_args_support(alone), network, params)
    assert alive_without <= 4 / 16
    assert alive >= 14 / 16
    assert loss < 0.5 * loss_without
