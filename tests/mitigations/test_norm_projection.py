"""Projections of weights: clipping to the layer's range, norms of kernels, and NaP on networks with norms."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity.errors import UserError
from plasticity.heads import Softmax
from plasticity.mitigations import Setting, compose
from plasticity.mitigations.layers import fan_ins, rescaled, under
from plasticity.mitigations.nap import NaP
from plasticity.mitigations.project_norm import ProjectNorm
from plasticity.mitigations.weight_clipping import WeightClipping
from plasticity.network import get_at
from plasticity.networks import Architecture, networks
from plasticity.spec import build

STILL = optax.with_extra_args_support(optax.set_to_zero())
X = jnp.asarray(np.random.default_rng(0).normal(size=(16, 6, 6, 2)), jnp.float32)
PLAIN = Architecture(Softmax(3))
NOISY = replace(PLAIN, dueling=True, predictions=2, noise=0.5)


def network(name="mlp", architecture=PLAIN, member=None):
    """A small network, with parameters that are no longer those of its initialisation."""
    size = {"mlp": lambda: networks.get("mlp")(5, 3), "minatar": lambda: networks.get("minatar")(6, 4)}[name]()
    net = size.build(architecture if member is None else member.network(architecture))
    params = net.init(jax.random.key(0), X)["params"]
    rng = np.random.default_rng(1)
    grown = jax.tree.map(lambda p: p * 3 + jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)
    return net, params, grown


def around(member, net, tx=STILL, lr=0.1):
    return member.optimizer(tx, Setting(net, lambda key: net.init(key, X), lr, jax.random.key(2)))


def projected(member, net, initial, params, step=0):
    """Parameters after an update in which the optimiser itself does nothing."""
    tx = around(member, net)
    updates, _ = tx.update(params, tx.init(initial), params, step=step)
    return optax.apply_updates(params, updates)


def flat(tree):
    return {"/".join(k.key for k in path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


# Clipping ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "architecture"), [("mlp", replace(PLAIN, normalization="layer")), ("minatar", NOISY)])
def test_every_weight_and_bias_has_the_bound_of_its_own_layer(name, architecture):
    """By the names of the suite's networks, written down apart from the unit graph. Norm parameters are free."""
    net, initial, grown = network(name, architecture)
    before, after = flat(grown), flat(projected(WeightClipping(kappa=1.5), net, initial, grown))
    for path, new in after.items():
        layer = path.split("/")[0]
        if layer.startswith("norm"):
            np.testing.assert_array_equal(new, before[path])
            continue
        bound = 1.5 / np.sqrt(np.prod(before[f"{layer}/kernel"].shape[:-1]))
        np.testing.assert_allclose(new, np.clip(before[path], -bound, bound), rtol=1e-6, atol=1e-7)
        assert np.any(new != before[path])


def test_clipping_twice_is_clipping_once_and_what_is_within_the_bounds_is_left_alone():
    net, initial, grown = network()
    member = WeightClipping(kappa=1.0)
    once = projected(member, net, initial, grown)
    twice = projected(member, net, initial, once)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8), twice, once)
    # Through an optimiser: the updates of weights that stay inside are those of the optimiser, to the bit.
    sgd = optax.with_extra_args_support(optax.sgd(0.01))
    tx = around(WeightClipping(kappa=1e3), net, sgd)
    mine, _ = tx.update(grown, tx.init(initial), grown)
    theirs, _ = sgd.update(grown, sgd.init(initial), grown)
    jax.tree.map(np.testing.assert_array_equal, mine, theirs)


def test_the_default_leaves_every_initial_weight_alone():
    net, initial, _ = network()
    jax.tree.map(np.testing.assert_array_equal, projected(WeightClipping(), net, initial, initial), initial)


def test_the_output_layer_may_be_left_out():
    net, initial, grown = network("minatar", NOISY)
    after = flat(projected(WeightClipping(kappa=0.1, output=False), net, initial, grown))
    changed = {path.split("/")[0] for path, value in flat(grown).items() if np.any(value != after[path])}
    assert changed == {"conv_0", "value_hidden", "advantage_hidden"}


def test_fan_ins_of_an_unknown_network():
    """Parameters without a layer have none; a network that does not name its output has no output layer to spare."""
    net = replace(network()[0], units=(), output_kernel=())
    params = {"a": {"kernel": jnp.ones((2, 3, 4)), "bias": jnp.ones(4)}, "b": {"bias": jnp.ones(2)}, "c": jnp.ones(5)}
    assert fan_ins(params, net) == {"a": {"kernel": 6, "bias": 6}, "b": {"bias": 0}, "c": 0}
    assert not any(jax.tree.leaves(under(params, [()])))


# Norms of kernels ---------------------------------------------------------------------------------------------


def norm(*arrays):
    return np.sqrt(sum(np.sum(np.square(np.asarray(a, np.float64))) for a in arrays))


def test_projection_by_hand():
    """(3, 4) has norm 5: to norm 1 it is (.6, .8)."""
    params = {"w": jnp.array([[3.0], [4.0]]), "b": jnp.zeros(2)}
    np.testing.assert_allclose(rescaled(params, [("w",)], jnp.array(1.0))["w"], [[0.6], [0.8]], rtol=1e-6)
    for paths, target in (([("b",)], 1.0), ([("w",)], 0.0)):  # a norm of zero on either side: skipped, never NaN
        jax.tree.map(np.testing.assert_array_equal, rescaled(params, paths, jnp.array(target)), params)


@pytest.mark.parametrize(("name", "architecture"), [("mlp", PLAIN), ("minatar", NOISY)])
def test_hidden_kernels_return_to_their_initial_norm_and_nothing_else_changes(name, architecture):
    net, initial, grown = network(name, architecture)
    after = projected(ProjectNorm(), net, initial, grown)
    expected = dict(flat(grown))
    for layer in net.units:
        kernels = [f"{layer.name}/{k}" for k in ("kernel", "noise_kernel") if f"{layer.name}/{k}" in expected]
        factor = norm(*(flat(initial)[k] for k in kernels)) / norm(*(expected[k] for k in kernels))
        expected |= {k: expected[k] * factor for k in kernels}
        np.testing.assert_allclose(
            norm(*(flat(after)[k] for k in kernels)) / factor, norm(*(flat(grown)[k] for k in kernels)), rtol=1e-6
        )
    for path, value in flat(after).items():
        np.testing.assert_allclose(value, expected[path], rtol=1e-5, atol=1e-6)


def test_a_dead_kernel_is_skipped():
    net, initial, grown = network()
    grown["hidden_1"]["kernel"] = jnp.zeros_like(grown["hidden_1"]["kernel"])
    after = projected(ProjectNorm(), net, initial, grown)
    assert not np.any(after["hidden_1"]["kernel"])
    assert all(np.all(np.isfinite(p)) for p in jax.tree.leaves(after))


@pytest.mark.parametrize("member", [ProjectNorm(every=3), NaP(every=3)])
def test_a_period_is_counted_on_the_run_or_on_the_state(member):
    net, initial, grown = network(member=member)
    tx = around(member, net)
    update = jax.jit(lambda state, step: tx.update(grown, state, grown, step=step))
    for step, due in ((0, False), (2, True), (4, False), (5, True)):
        assert np.any(flat(update(tx.init(initial), step)[0])["hidden_0/kernel"]) == due
    state, acted = tx.init(initial), []
    for _ in range(6):
        updates, state = tx.update(grown, state, grown)
        acted.append(bool(np.any(flat(updates)["hidden_0/kernel"])))
    assert acted == [False, False, True, False, False, True]
    # A branch also where runs are mapped.
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), tx.init(initial))
    mapped = jax.vmap(lambda state, step: tx.update(grown, state, grown, step=step)[0], in_axes=(0, None))
    assert "cond[" in str(jax.make_jaxpr(mapped)(states, jnp.int32(0)))


# NaP --------------------------------------------------------------------------------------------------------

PAIRS = [("free", "gelu"), ("decay", "tanh"), ("joint", "relu"), ("joint", "leaky_relu"), ("joint", "crelu")]


@pytest.mark.parametrize(("affine", "activation"), PAIRS)
@pytest.mark.parametrize("name", ["mlp", "minatar"])
def test_nap_projects_without_changing_the_function(name, affine, activation):
    """Up to the 1e-6 inside the norms: kernels are scaled, and in `joint` the norms' own parameters too."""
    member = NaP(affine=affine, decay=0.0)
    architecture = replace(PLAIN, activation=activation)
    net, initial, grown = network(name, architecture, member)
    assert {path for path in flat(initial) if path.endswith("/bias") and "norm" not in path} == {"output/bias"}
    after = projected(member, net, initial, grown)
    for layer in net.units:
        assert norm(get_at(after, layer.kernel)) == pytest.approx(norm(get_at(initial, layer.kernel)), rel=1e-6)
        moved = norm(after[f"norm_{layer.name}"]["scale"], after[f"norm_{layer.name}"]["bias"])
        if affine == "joint" and layer is not net.units[-1]:  # the last one is read by the output, which has no norm
            assert moved == pytest.approx(layer.units**0.5, rel=1e-6)
            assert np.any(after[f"norm_{layer.name}"]["scale"] != grown[f"norm_{layer.name}"]["scale"])
        else:
            jax.tree.map(np.testing.assert_array_equal, after[f"norm_{layer.name}"], grown[f"norm_{layer.name}"])
    np.testing.assert_array_equal(after["output"]["kernel"], grown["output"]["kernel"])
    np.testing.assert_allclose(
        net.apply({"params": after}, X)[0], net.apply({"params": grown}, X)[0], rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("name", ["mlp", "minatar", "impala"])
@pytest.mark.parametrize("architecture", [PLAIN, NOISY])
def test_hidden_layers_without_biases(name, architecture):
    """Neither biases nor their noise, in the parameters and in the unit graph; streams and outputs keep theirs."""
    net = networks.get(name)().build(replace(architecture, bias=False, normalization="layer"))
    params = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.ones((2, 10, 10, 1))))["params"]
    for layer in net.units:
        assert layer.bias is None
        assert set(params[layer.name]) == ({"kernel", "noise_kernel"} if layer.further else {"kernel"})
    for kernel in (net.output_kernel, *net.other_outputs):
        assert "bias" in params[kernel[0]]
    if name == "impala":
        assert "bias" in params["stage_0"]


def test_the_joint_projection_would_change_the_function_of_other_activations():
    """Why they are refused."""
    member = NaP(affine="joint")
    net, initial, grown = network("mlp", PLAIN, member)
    after = projected(member, net, initial, grown)
    other = networks.get("mlp")(5, 3).build(replace(member.network(PLAIN), activation="gelu"))
    change = np.abs(other.apply({"params": after}, X)[0] - other.apply({"params": grown}, X)[0])
    assert change.max() > 0.1


def test_nap_in_joint_form_refuses_activations_that_are_not_homogeneous():
    from plasticity.mitigations import mitigations

    with pytest.raises(UserError, match=r"nap\(affine=joint\) and gelu cannot be combined"):
        compose.canonical(build("gelu+nap(affine=joint)", mitigations))
    with pytest.raises(UserError, match="homogeneous"):
        NaP(affine="joint").network(replace(PLAIN, activation="tanh"))
    for spec in ("gelu+nap", "crelu+nap(affine=joint)", "gelu+nap(affine=decay)"):
        compose.canonical(build(spec, mitigations))
    with pytest.raises(UserError, match="layer_norm and nap cannot be combined: each sets the network's normalization"):
        compose.canonical(build("layer_norm+nap", mitigations))


def test_nap_says_that_it_needs_norms():
    with pytest.raises(UserError, match="this one has no norms"):
        around(NaP(), network()[0])


def test_decay_of_scale_and_offset_by_hand():
    """lr .1, decay .5: scale 3 -> 3 - .05 (3 - 1) = 2.9, offset 2 -> 2 - .05 2 = 1.9, in every update."""
    member = NaP(affine="decay", decay=0.5, every=1000)
    net, initial, grown = network(member=member)
    for layer in net.units:
        grown[f"norm_{layer.name}"] = {"scale": jnp.full(5, 3.0), "bias": jnp.full(5, 2.0)}
    after = projected(member, net, initial, grown)
    for layer in net.units:
        np.testing.assert_allclose(after[f"norm_{layer.name}"]["scale"], 2.9, rtol=1e-6)
        np.testing.assert_allclose(after[f"norm_{layer.name}"]["bias"], 1.9, rtol=1e-6)
        np.testing.assert_array_equal(get_at(after, layer.kernel), get_at(grown, layer.kernel))
