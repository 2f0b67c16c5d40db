"""Resets of the optimiser, the head and the last layers: which entries, to what, and the optimiser's state of these."""

from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from lab import batch, method, setting

from plasticity.heads import Regression
from plasticity.mitigations import Event, Learner, Setting, compose, mitigations
from plasticity.network import Network, Outgoing, UnitLayer
from plasticity.networks import Architecture, networks
from plasticity.optimizers import optimizers
from plasticity.spec import build, build_one

X = jnp.zeros((2, 9, 9, 1))
EVENT = Event(jnp.int32(1), lambda key: X, lambda variables, key: variables["params"])
DUELING = {"dueling": True, "noise": 0.5}


def filled(tree, value):
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, value), tree)


@lru_cache
def network(spec, **options):
    return build_one(spec, networks).build(Architecture(Regression(-1.0, 1.0), predictions=3, **options))


def happen(spec, net, params=None, fresh=5.0, tx=None):
    """(learner, learner after the event): all parameters are 1, all fresh ones `fresh`, all of Adam's state 7."""
    shapes = params or jax.eval_shape(net.init, jax.random.key(0), X)["params"]
    tx = tx or optimizers.get("adam")().build(per_entry=True)
    params = filled(shapes, 1.0)
    learner = Learner({"params": params}, filled(tx.init(params), 7.0))
    surroundings = Setting(net, lambda key: {"params": filled(params, fresh)}, 0.1, jax.random.key(0), tx)
    members = compose.canonical(build(spec, mitigations))
    return learner, compose.on_switch(members, jax.random.key(1), learner, surroundings, EVENT)


def names_of(tree, value):
    """The modules of which all leaves are `value`."""
    return {name for name, module in tree.items() if all(np.all(leaf == value) for leaf in jax.tree.leaves(module))}


STREAMS = {"value_output", "advantage_output"}
STREAM_HIDDEN = {"value_hidden", "advantage_hidden"}
CASES = [
    ("head_reset", "mlp(4, 3)", {}, {"output"}),
    ("head_reset", "mlp(4, 3)", DUELING, STREAMS),
    ("head_reset", "mlp(4, 1)", {"normalization": "layer"}, {"output"}),
    ("layer_reset", "mlp(4, 3)", {}, {"hidden_2", "output"}),
    ("layer_reset", "mlp(4, 3)", {"normalization": "layer"}, {"hidden_2", "norm_hidden_2", "output"}),
    ("layer_reset(2)", "mlp(4, 3)", {}, {"hidden_1", "hidden_2", "output"}),
    ("layer_reset(9)", "mlp(4, 3)", {}, {"hidden_0", "hidden_1", "hidden_2", "output"}),
    # Streams side by side are one layer.
    ("layer_reset", "mlp(4, 3)", DUELING, STREAMS | STREAM_HIDDEN),
    ("layer_reset(2)", "mlp(4, 3)", DUELING, STREAMS | STREAM_HIDDEN | {"hidden_1"}),
    # Ten layers and more: in the order of the graph, where names sort hidden_10 before hidden_2.
    ("layer_reset(3)", "mlp(4, 12)", {}, {"hidden_9", "hidden_10", "hidden_11", "output"}),
    # Both convolutions of a residual block.
    ("layer_reset(2)", "impala(4)", {}, {"stage_2_block_1_inner", "stage_2_block_1_outer", "hidden", "output"}),
]


@pytest.mark.parametrize(("spec", "net", "options", "expected"), CASES)
def test_exactly_these_layers_are_fresh_and_their_state_new(spec, net, options, expected):
    before, after = happen(spec, network(net, **options))
    params = after.variables["params"]
    assert names_of(params, 5.0) == expected
    assert names_of(params, 1.0) == set(params) - expected
    trees = [t for t in jax.tree.leaves(after.opt_state, is_leaf=lambda n: isinstance(n, dict)) if isinstance(t, dict)]
    assert len(trees) == 4  # two moments, and a count of each
    for tree in trees:
        assert names_of(tree, 0.0) == expected
        assert names_of(tree, 7.0) == set(params) - expected
    assert jax.tree.structure(after) == jax.tree.structure(before)


@pytest.mark.parametrize("options", [{}, DUELING])
def test_a_head_of_zeros(options):
    """Kernel and bias; deviations are a fresh network's, or a noisy layer would stop exploring."""
    _, after = happen("head_reset(zeros=true)", network("mlp(4, 3)", **options))
    for name, layer in after.variables["params"].items():
        value = 0.0 if name.endswith("output") else 1.0
        assert np.all(layer["kernel"] == value)
        assert np.all(layer["bias"] == value)
        if "noise_kernel" in layer:
            assert np.all(layer["noise_kernel"] == (5.0 if name.endswith("output") else 1.0))


def test_a_head_of_zeros_says_nothing_and_moves_first():
    """Every output is 0, and the body has no gradient in the first update: only the head moves."""
    parts, _, variables = setting(method("head_reset(zeros=true)"))
    x, y = batch("regression")
    learner = Learner(variables, parts.tx.init(variables["params"]))
    after = compose.on_switch(method("head_reset(zeros=true)").mitigations, jax.random.key(1), learner, parts, EVENT)
    params = after.variables["params"]
    assert not np.any(parts.network.apply(after.variables, x)[0])
    grads = jax.grad(lambda p: jnp.mean((parts.network.apply({"params": p}, x)[0][:, 0] - y) ** 2))(params)
    assert names_of(grads, 0.0) == {"hidden_0", "hidden_1"}
    assert np.any(grads["output"]["kernel"])


def test_the_first_update_of_a_fresh_head_is_adams_first_update():
    """lr in every entry under a steady gradient: with one count for all it would be 3.16 lr."""
    parts, _, variables = setting(method("head_reset", "adam(0.01)"))
    params = variables["params"]
    learner = Learner(variables, parts.tx.init(params))
    grads = filled(params, 0.5)
    update = jax.jit(lambda grads, state, params: parts.tx.update(grads, state, params, activations={}, step=0))
    for _ in range(50):
        learner = learner._replace(opt_state=update(grads, learner.opt_state, params)[1])
    after = compose.on_switch(method("head_reset").mitigations, jax.random.key(1), learner, parts, EVENT)
    updates, _ = update(grads, after.opt_state, after.variables["params"])
    for leaf in jax.tree.leaves(updates):
        np.testing.assert_allclose(leaf, -0.01, rtol=1e-4)


def test_two_switches_draw_two_heads_and_a_draw_is_the_layers_own():
    chosen = method("head_reset")
    parts, _, variables = setting(chosen)
    learner = Learner(variables, parts.tx.init(variables["params"]))
    heads = []
    for seed in range(2):
        after = compose.on_switch(chosen.mitigations, jax.random.key(seed), learner, parts, EVENT)
        heads.append(after.variables["params"]["output"]["kernel"])
    assert np.all(heads[0] != heads[1])
    bound = 2 / 0.8796 / 8**0.5  # LeCun's normal of eight inputs: cut at two deviations of the normal before the cut
    assert all(np.all(np.abs(head) < bound) for head in heads)


def test_optimizer_reset_is_a_fresh_state_for_the_parameters_as_they_are():
    tx = optimizers.get("adam")().build()
    net = network("mlp(4, 3)")
    before, after = happen("optimizer_reset", net, tx=tx)
    assert after.variables is before.variables
    jax.tree.map(np.testing.assert_array_equal, after.opt_state, tx.init(before.variables["params"]))
    # Also what wraps it: redo counts from 0 again.
    chosen = method("optimizer_reset+redo")
    parts, _, variables = setting(chosen)
    state = parts.tx.init(variables["params"])
    learner = Learner(variables, state._replace(count=state.count + 9))
    assert compose.on_switch(chosen.mitigations, jax.random.key(0), learner, parts, EVENT).opt_state.count == 0


def test_running_statistics_of_a_renewed_layer_restart_too():
    """And a flat record, whose layers are single parameters, is renewed parameter by parameter."""
    layers = (
        UnitLayer("a", 2, ("a",), None, ("na", "scale"), ("na", "bias"), (Outgoing(("b",)),)),
        UnitLayer("b", 2, ("b",), ("b_bias",), ("nb", "scale"), None, (Outgoing(("out",)),)),
    )
    net = replace(network("mlp(4, 1)"), units=layers, output_kernel=("out",))
    params = {"a": 0.0, "b": 0.0, "b_bias": 0.0, "na": {"scale": 0.0, "bias": 0.0}, "nb": {"scale": 0.0}, "out": 0.0}
    params = jax.tree.map(jnp.float32, params)
    stats = {"na": {"mean": jnp.float32(3)}, "nb": {"mean": jnp.float32(3)}}
    variables = {"params": params, "batch_stats": stats, "memory": {"other": {"nb": jnp.float32(3)}}}
    tx = optax.sgd(0.1)
    surroundings = Setting(net, lambda key: filled(variables, 5.0), 0.1, jax.random.key(0), tx)
    (member,) = build("layer_reset", mitigations)
    after = member.on_event(jax.random.key(0), Learner(variables, tx.init(params)), surroundings, EVENT).variables
    fresh = {"b": 5.0, "b_bias": 5.0, "nb": {"scale": 5.0}, "out": 5.0}
    assert jax.tree.map(float, after["params"]) == jax.tree.map(float, params) | fresh
    assert float(after["batch_stats"]["nb"]["mean"]) == 5.0
    assert float(after["batch_stats"]["na"]["mean"]) == 3.0
    assert float(after["memory"]["other"]["nb"]) == 3.0


def test_a_record_says_which_kernels_are_outputs():
    assert network("mlp(4, 1)", dueling=True).output_kernel == ("advantage_output", "kernel")
    assert network("mlp(4, 1)", dueling=True).other_outputs == (("value_output", "kernel"),)
    assert isinstance(network("mlp(4, 1)"), Network)
    assert network("mlp(4, 1)").other_outputs == ()
