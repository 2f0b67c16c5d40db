"""What every reset of units must do, on every kind of unit graph: dead units restart, and nothing else happens."""

from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity.errors import UserError
from plasticity.heads import Regression
from plasticity.mitigations import Setting, mitigations
from plasticity.mitigations.recycling import overwrite
from plasticity.mitigations.resets import anywhere, every, resetting
from plasticity.network import get_at, set_at
from plasticity.networks import Architecture, networks
from plasticity.optimizers import optimizers
from plasticity.spec import build

#: Each resets exactly the dead units in the first update, and the same member does nothing in it.
RESETS = {
    "redo(tau=0, every=1)": "redo(tau=0, every=2)",
    "regrama(tau=0, every=1)": "regrama(tau=0, every=2)",
    "self_normalised_resets(longest=1)": "self_normalised_resets(longest=2)",
    # A quarter of the units of each layer is dead, and all are mature.
    "continual_backprop(rate=0.25, maturity=0, pool_every=1)": "continual_backprop(rate=0.25)",
}
LR = 0.01
ADAM = optimizers.get("adam")(lr=LR)


def architecture(**options):
    return Architecture(Regression(-1.0, 1.0), **options)


NETWORKS = {
    "mlp": ("mlp(8, 3)", (12,), architecture()),
    "conv to dense, crelu, two streams": (
        "minatar(8, features=4)",
        (5, 5, 2),
        architecture(activation="crelu", dueling=True, predictions=3),
    ),
    "conv to conv to dense": ("nature(8)", (8, 8, 2), architecture(activation="crelu")),
}


@lru_cache
def prepared(name):
    """(setting, parameters of which a quarter of each layer's units is dead, inputs, targets, masks of the dead)."""
    spec, shape, style = NETWORKS[name]
    network = build(spec, networks)[0].build(style)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(16, *shape)), jnp.float32)
    params = network.init(jax.random.key(0), x)["params"]
    # All away from zero, then nothing comes into the dead: their gradients are exactly zero, too.
    params = jax.tree.map(lambda p: p + 0.1 * jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)
    masks = {layer.name: jnp.arange(layer.units) < layer.units // 4 for layer in network.units}
    for layer in network.units:
        for path in (layer.kernel, layer.bias):
            params = set_at(params, path, jnp.where(masks[layer.name], 0.0, get_at(params, path)))
    outputs, activations, _ = network.apply({"params": params}, x)
    for layer in network.units:
        post = np.asarray(activations[layer.name].post).reshape(-1, layer.units)
        np.testing.assert_array_equal(~np.any(post > 0, 0), masks[layer.name])
    y = jnp.asarray(rng.normal(size=outputs.shape), jnp.float32)
    setting = Setting(network, lambda key: network.init(key, x), LR, jax.random.key(1))
    return setting, params, x, y, masks


def warm(tx, params, touched):
    """A state of the inner Adam with a past everywhere, and no momentum where the dead are: they stay dead."""
    adam, scale = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)[1]
    return adam._replace(mu=jax.tree.map(lambda m, dead: jnp.where(dead, 0.0, m), adam.mu, touched)), scale


@lru_cache
def first_update(spec, name):
    """The first update of the wrapped optimiser and of the inner one, from the same moments."""
    setting, params, x, y, masks = prepared(name)
    inner = ADAM.build(per_entry=True)
    tx = build(spec, mitigations)[0].optimizer(inner, setting)

    def loss(params):
        outputs, activations, _ = setting.network.apply({"params": params}, x)
        return jnp.mean(jnp.square(outputs - y)), activations

    @jax.jit
    def run(params):
        grads, activations = jax.grad(loss, has_aux=True)(params)
        before = warm(inner, params, overwrite(params, params, masks, setting.network.units)[1])
        state = tx.init(params)._replace(inner=before)
        return tx.update(grads, state, params, activations=activations), inner.update(grads, before, params)

    return run(params)


@lru_cache
def function(name):
    setting, _, x, _, _ = prepared(name)
    return jax.jit(lambda params: setting.network.apply({"params": params}, x)[0])


# The large one with one of them: what they share is what differs between networks.
SMALL = [name for name in NETWORKS if name != "conv to conv to dense"]
CASES = [(spec, name) for spec in RESETS for name in SMALL] + [("redo(tau=0, every=1)", "conv to conv to dense")]
cases = pytest.mark.parametrize(("spec", "name"), CASES)


@cases
def test_dead_units_restart_and_the_function_stays_to_the_bit(spec, name):
    setting, params, _, _, masks = prepared(name)
    (updates, _), (plain, _) = first_update(spec, name)
    after, without = optax.apply_updates(params, updates), optax.apply_updates(params, plain)
    _, touched = overwrite(without, without, masks, setting.network.units)
    jax.tree.map(lambda u, v, m: np.testing.assert_array_equal(u[~m], v[~m]), updates, plain, touched)
    for layer in setting.network.units:
        assert np.all(np.any(np.asarray(get_at(after, layer.kernel)).reshape(-1, layer.units) != 0, 0))
        for outgoing in layer.outgoing:
            rows = np.asarray(outgoing.rows(masks[layer.name], params))
            assert not np.any(np.asarray(get_at(after, outgoing.kernel))[..., rows, :])
    np.testing.assert_array_equal(function(name)(after), function(name)(without))


@cases
def test_the_state_restarts_for_exactly_the_touched_entries_and_their_next_step_is_of_size_lr(spec, name):
    setting, params, _, _, masks = prepared(name)
    (_, state), (_, kept) = first_update(spec, name)
    _, touched = overwrite(params, params, masks, setting.network.units)
    reset, kept = state.inner[0], kept[0]
    for found, expected in zip(reset, kept, strict=True):
        jax.tree.map(lambda a, b, m: np.testing.assert_array_equal(a, np.where(m, 0, b)), found, expected, touched)
    again, _ = ADAM.build(per_entry=True).update(jax.tree.map(lambda p: 1e-3 * jnp.ones_like(p), params), state.inner)
    jax.tree.map(lambda u, m: np.testing.assert_allclose(u[m], -LR, rtol=1e-4), again, touched)
    assert all(
        np.all(np.abs(u[~m] + LR) > 0.05 * LR) for u, m in zip(*map(jax.tree.leaves, (again, touched)), strict=True)
    )


@pytest.mark.parametrize("spec", RESETS.values())
def test_nothing_happens_when_it_is_not_due(spec):
    (updates, state), (plain, kept) = first_update(spec, "mlp")
    jax.tree.map(np.testing.assert_array_equal, updates, plain)
    jax.tree.map(np.testing.assert_array_equal, state.inner, kept)


# Acting as a branch -----------------------------------------------------------------------------------------------


def primitives(jaxpr, inside_branches):
    """Names of the primitives of a program, and of the programs in it; with or without those in branches."""
    names = set()
    for eqn in jaxpr.eqns:
        names.add(eqn.primitive.name)
        if inside_branches or eqn.primitive.name != "cond":
            for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    names |= primitives(inner, inside_branches)
    return names


@pytest.mark.parametrize("spec", [*RESETS.values(), "selective_weight_reinit(prune=share, utility=random)"])
def test_under_vmap_a_reset_is_a_branch_and_nothing_is_drawn_or_sorted_outside_of_it(spec):
    setting, params, x, _, _ = prepared("mlp")
    (member,) = build(spec, mitigations)
    activations = setting.network.apply({"params": params}, x)[1]

    def update(member, params, step):
        tx = member.optimizer(ADAM.build(per_entry=True), setting)
        return tx.update(params, tx.init(params), params, activations=activations, step=step)[0]

    runs = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf, jnp.float32)] * 3), (member, params))
    program = jax.make_jaxpr(jax.vmap(update, in_axes=(0, 0, None)))(*runs, 7).jaxpr
    drawing = {"random_bits", "threefry2x32", "sort"}
    assert drawing & primitives(program, inside_branches=True)
    assert not drawing & primitives(program, inside_branches=False)


def test_a_run_that_does_not_fire_is_not_changed_by_one_that_does():
    """Counts of their own, as after a renewal of one run's state: each run is reset when its own count says so."""
    setting, params, _, _, _ = prepared("mlp")
    tx = resetting(
        "test",
        optax.identity(),
        setting,
        fires=every(3),
        reset=lambda updates, inner, memory, seen: (jax.tree.map(lambda u: u + 1.0, updates), inner, memory),
        reads_activations=False,
    )
    state = jax.vmap(lambda count: tx.init(params)._replace(count=count))(jnp.arange(6))
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.vmap(lambda state: tx.update(zeros, state, params))(state)
    assert updates["output"]["bias"][:, 0].tolist() == [0, 0, 1, 0, 0, 1]


def test_anywhere_is_the_predicate_itself_for_one_run():
    assert [bool(jax.jit(anywhere)(jnp.array(p))) for p in (True, False)] == [True, False]
    nested = jax.vmap(jax.vmap(lambda p: jax.lax.cond(anywhere(p), lambda: 1, lambda: 0)))
    assert nested(jnp.eye(2, dtype=bool)).tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("spec", [*RESETS, "cpr"])
def test_a_network_without_a_unit_graph_is_refused(spec):
    setting, *_ = prepared("mlp")
    (member,) = build(spec, mitigations)
    nameless = replace(setting, network=replace(setting.network, units=()))
    with pytest.raises(UserError, match=f"{member.name} acts on units, and this network names none"):
        member.optimizer(ADAM.build(per_entry=True), nameless)


@pytest.mark.parametrize("spec", RESETS)
def test_what_a_loop_does_not_give_is_named(spec):
    setting, params, _, _, _ = prepared("mlp")
    (member,) = build(spec, mitigations)
    tx = member.optimizer(ADAM.build(per_entry=True), setting)
    with pytest.raises(UserError, match=f"{member.name}: update.* needs params"):
        tx.update(params, tx.init(params))
    if member.name != "regrama":
        with pytest.raises(UserError, match=f"{member.name}: update.* needs activations="):
            tx.update(params, tx.init(params), params)
