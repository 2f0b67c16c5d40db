"""The unit graph of every network under every option: paths, fan-out, cutting, and recycling dead units."""

import math
from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity.heads import Regression, Softmax
from plasticity.mitigations import Setting
from plasticity.mitigations.recycling import overwrite
from plasticity.mitigations.redo import Redo
from plasticity.network import Outgoing, get_at, set_at
from plasticity.networks import Architecture, networks
from plasticity.optimizers import optimizers
from plasticity.spec import build_one

NETWORKS = {
    "mlp": "mlp(6, 3)",
    "minatar": "minatar(6, features=4)",
    "nature": "nature(6)",
    "impala": "impala(6)",
    "cnn": "cnn(6, channels=4)",
    "vit": "vit(6, 2, heads=3, expansion=2)",
    "transformer": "transformer(6, 2, heads=3, expansion=2)",
    "linear_recurrence": "linear_recurrence(6, 2, expansion=2)",
}
#: Layers of each block that are not in the unit graph, of networks with a residual stream of positions.
MIXING = {
    "vit": ("query", "key", "value", "projection"),
    "transformer": ("query", "key", "value", "projection"),
    "linear_recurrence": ("value", "recurrence_gate", "input_gate", "decay", "projection"),
}
SEQUENCES = ("transformer", "linear_recurrence")
OPTIONS = {
    "plain": {},
    "layer_norm": {"normalization": "layer"},
    "crelu": {"activation": "crelu"},
    "dueling": {"dueling": True},
    "noisy": {"noise": 0.5},
    "noisy dueling crelu": {"noise": 0.5, "dueling": True, "activation": "crelu"},
    "rainbow": {"noise": 0.5, "dueling": True},
}
# Small, but with several positions before the dense layer; stride 4, 2 and three poolings leave 3 x 2 and 2 x 2.
X = np.random.default_rng(0).normal(size=(4, 17, 16, 2)).astype(np.float32)
TOKENS = np.random.default_rng(0).integers(0, 5, (4, 7)).astype(np.int32)
INPUTS = {
    "mlp": X[:, :3, :3],
    "minatar": X[:, :6, :5],
    "nature": X,
    "impala": X[:, :9, :9],
    "cnn": X[:, :9, :8],
    "vit": X[:, :7, :7],
    "transformer": TOKENS,
    "linear_recurrence": TOKENS,
}
KEY = jax.random.key(5)
every_network = pytest.mark.parametrize("name", NETWORKS)
every_option = pytest.mark.parametrize("option", OPTIONS)


@dataclass(frozen=True)
class Case:
    network: object
    params: dict
    x: np.ndarray
    apply: object

    def output(self, params):
        return np.asarray(self.apply({"params": params}, self.x, KEY)[0])


@lru_cache
def case(name, option):
    """A network with parameters that are random everywhere, and its forward pass, compiled once."""
    head = Softmax(5) if name in SEQUENCES else Regression(-1.0, 1.0)
    architecture = Architecture(head, predictions=3, **OPTIONS[option])
    network, x = build_one(NETWORKS[name], networks).build(architecture), INPUTS[name]
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)["params"]
    return Case(network, random_like(shapes, 1), x, jax.jit(network.apply))


def random_like(tree, seed):
    rng = np.random.default_rng(seed)

    def draw(leaf):
        fan_in = math.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 4
        return jnp.asarray(rng.normal(size=leaf.shape) / fan_in**0.5, jnp.float32)

    return jax.tree.map(draw, tree)


# Paths --------------------------------------------------------------------------------------------------------------


def dense_layers(name, option):
    """{layer: readers} at the dense end, written down by hand."""
    if "dueling" in OPTIONS[option]:
        return {f"{s}_hidden": [f"{s}_output"] for s in ("value", "advantage")}
    last = {"mlp": "hidden_2", "cnn": "hidden_1"}.get(name, "hidden")
    return {} if name in MIXING else {last: ["output"]}


def expected_graph(name, option):
    """{layer: (units, its readers)} of the whole network."""
    end = dense_layers(name, option)
    first = list(end)
    torso = {
        "mlp": {"hidden_0": (6, ["hidden_1"]), "hidden_1": (6, first)},
        "minatar": {"conv_0": (4, first)},
        "nature": {"conv_0": (32, ["conv_1"]), "conv_1": (64, ["conv_2"]), "conv_2": (64, first)},
        "impala": {
            f"stage_{i}_block_{j}_inner": (channels, [f"stage_{i}_block_{j}_outer"])
            for i, channels in enumerate((16, 32, 32))
            for j in range(2)
        },
        "cnn": {"conv_0": (4, ["conv_1"]), "conv_1": (4, ["hidden_0"]), "hidden_0": (6, first)},
        **{key: {f"block_{i}": (12, [f"block_{i}_out"]) for i in range(2)} for key in MIXING},
    }[name]
    return torso | {layer: (6, readers) for layer, readers in end.items()}


@every_network
@every_option
def test_paths_and_fan_out(name, option):
    it, options = case(name, option), OPTIONS[option]
    graph = expected_graph(name, option)
    features = 2 if options.get("activation") == "crelu" else 1
    assert {layer.name: layer.units for layer in it.network.units} == {k: units for k, (units, _) in graph.items()}
    _, activations, _ = it.apply({"params": it.params}, it.x, KEY)
    for layer in it.network.units:
        units, readers = graph[layer.name]
        behind_torso = layer.name in dense_layers(name, option)
        assert layer.kernel == (layer.name, "kernel")
        assert layer.bias == (layer.name, "bias")
        incoming = [layer.kernel, layer.bias]
        if "normalization" in options:
            incoming += [layer.norm_scale, layer.norm_bias]
            assert layer.norm_scale == (f"norm_{layer.name}", "scale")
        else:
            assert layer.norm_scale is layer.norm_bias is None
        if "noise" in options and behind_torso:
            assert layer.further == ((layer.name, "noise_kernel"), (layer.name, "noise_bias"))
        else:
            assert layer.further == ()
        assert all(get_at(it.params, path).shape[-1] == units for path in (*incoming, *layer.further))
        # Readers: every kernel, and its deviations where the reader is noisy.
        expected = [(reader, "kernel") for reader in readers]
        expected += [(reader, "noise_kernel") for reader in readers if "noise_kernel" in it.params[reader]]
        assert sorted(o.kernel for o in layer.outgoing) == sorted(expected)
        pre, post = activations[layer.name]
        assert pre.shape[-1] * features == post.shape[-1] == units * features
        for outgoing in layer.outgoing:
            kernel = get_at(it.params, outgoing.kernel)
            positions = math.prod(post.shape[1:-1]) if kernel.ndim == 2 and name not in MIXING else 1
            if layer.name.startswith("conv") and name == "cnn" and kernel.ndim == 2:
                positions = 4  # 9 x 8 pooled twice
            assert kernel.shape[-2] == units * features * positions
            assert outgoing.rows(jnp.arange(units), it.params).shape == (kernel.shape[-2],)
    readers = [reader for readers in dense_layers(name, option).values() for reader in readers]
    assert it.network.output_kernel == ((readers or ["output"])[-1], "kernel")
    # Nothing with units on its last axis is left out, but for what the graph does not cover.
    named = {path[0] for layer in it.network.units for path in (layer.kernel, *(o.kernel for o in layer.outgoing))}
    free = {p for p in it.params if p not in named and not p.startswith("norm_")}
    expected = {f"block_{i}_{part}" for i in range(2) for part in MIXING.get(name, ())}
    expected |= {"impala": {"stage_0", "stage_1", "stage_2"}, "vit": {"embedding", "places"}}.get(name, set())
    expected |= {"tokens"} if name in SEQUENCES else set()
    assert free == expected | ({"output"} if name in MIXING and not readers else set())


@every_network
@every_option
def test_a_unit_whose_rows_are_cut_is_not_noticed(name, option):
    """Whatever it does then: its bias is moved far, in either direction. With its rows, it is noticed."""
    it = case(name, option)
    for layer in it.network.units:
        mask = jnp.arange(layer.units) == layer.units - 2
        # After a layer norm a unit's own offset moves it alone; its bias would move its neighbours too.
        path = layer.norm_bias or layer.bias
        cut = it.params
        for outgoing in layer.outgoing:
            rows = outgoing.rows(mask, cut)[:, None]
            cut = set_at(cut, outgoing.kernel, jnp.where(rows, 0.0, get_at(cut, outgoing.kernel)))

        def moved(params, shift, path=path, mask=mask):
            return it.output(set_at(params, path, get_at(params, path) + shift * mask))

        still = it.output(cut)
        for shift in (-50.0, 50.0):  # either half of a CReLU
            np.testing.assert_array_equal(moved(cut, shift), still, err_msg=layer.name)
        assert np.any(np.abs(moved(it.params, 50.0) - it.output(it.params)) > 1e-3), layer.name


# Recycling ----------------------------------------------------------------------------------------------------------


def killed(params, layers, units):
    """Units that are zero on every input: under ReLU by a bias far below, under CReLU because nothing comes in."""
    for layer in layers:
        at = jnp.array(units)
        params = set_at(params, layer.bias, get_at(params, layer.bias).at[at].set(-1e3))
    return params


def emptied(params, layers, units):
    at = jnp.array(units)
    for layer in layers:
        for path in (layer.kernel, layer.bias, *layer.further):
            params = set_at(params, path, get_at(params, path).at[..., at].set(0.0))
    return params


RECYCLED = [(n, o) for n in NETWORKS for o in ("plain", "crelu", "rainbow", "noisy dueling crelu")]
UNITS = [0, 3]


@pytest.mark.parametrize(("name", "option"), RECYCLED)
def test_recycling_dead_units_leaves_the_output_unchanged_to_the_bit(name, option):
    """Layer by layer (conv to conv, conv to dense, conv to two streams, dense to output), and all at once."""
    it = case(name, option)
    fresh = random_like(it.params, 2)
    kill = emptied if "crelu" in option else killed
    for layers in (*((layer,) for layer in it.network.units), it.network.units):
        params = kill(it.params, layers, UNITS)
        chosen = [layer.name for layer in layers]
        masks = {layer.name: jnp.isin(jnp.arange(layer.units), jnp.array(UNITS)) for layer in layers}
        recycled, _ = overwrite(params, fresh, masks, layers)
        np.testing.assert_array_equal(it.output(recycled), it.output(params), err_msg=str(chosen))
        _, before, _ = it.apply({"params": params}, it.x, KEY)
        _, after, _ = it.apply({"params": recycled}, it.x, KEY)
        for chosen_name in chosen:
            assert not np.any(np.asarray(before[chosen_name].post)[..., UNITS])
            moved = np.asarray(after[chosen_name].pre != before[chosen_name].pre)
            assert np.all(np.any(moved[..., UNITS], axis=0))  # another unit, only unheard
    assert np.any(it.output(random_like(it.params, 2)) != it.output(it.params))


def test_with_rows_repeated_instead_of_tiled_recycling_would_change_the_output(monkeypatch):
    """The wrong fan-out of HWC maps: unit c owning rows c k ... c k + k - 1, as if positions came last."""
    it = case("nature", "dueling")
    (layer,) = (layer for layer in it.network.units if layer.name == "conv_2")
    params, fresh = killed(it.params, [layer], UNITS), random_like(it.params, 2)
    masks = {"conv_2": jnp.isin(jnp.arange(64), jnp.array(UNITS))}

    def wrong(self, units, params):
        return jnp.repeat(units, get_at(params, self.kernel).shape[-2] // units.shape[0])

    right, _ = overwrite(params, fresh, masks, [layer])
    np.testing.assert_array_equal(it.output(right), it.output(params))
    monkeypatch.setattr(Outgoing, "rows", wrong)
    repeated, _ = overwrite(params, fresh, masks, [layer])
    assert np.any(np.abs(it.output(repeated) - it.output(params)) > 1e-3)


def entries_by_hand(params):
    """What recycling units 0 and 3 of conv_0, conv_2 and value_hidden of the nature Rainbow touches, by name."""
    marks = jax.tree.map(lambda p: np.zeros(p.shape, bool), params)
    for u in UNITS:
        for name in ("conv_0", "conv_2", "value_hidden"):
            marks[name]["kernel"][..., u] = marks[name]["bias"][u] = True
        marks["value_hidden"]["noise_kernel"][:, u] = marks["value_hidden"]["noise_bias"][u] = True
        marks["conv_1"]["kernel"][:, :, u] = True
        for leaf in ("kernel", "noise_kernel"):
            for stream in ("value", "advantage"):
                marks[f"{stream}_hidden"][leaf][u::64] = True
            marks["value_output"][leaf][u] = True
    return marks


def test_redo_resets_the_optimiser_state_of_exactly_the_touched_entries():
    """Of deviations too; all other entries go on, and no step is lost."""
    it = case("nature", "rainbow")
    layers = [layer for layer in it.network.units if layer.name in ("conv_0", "conv_2", "value_hidden")]
    # Dead are these and nobody else: what comes in is positive, and so are the other biases.
    params = jax.tree.map(jnp.abs, it.params)
    for layer in layers:
        params = set_at(params, layer.bias, get_at(params, layer.bias).at[jnp.array(UNITS)].set(-1e9))
    x = np.abs(it.x)
    fresh = random_like(params, 2)
    inner = optimizers.get("adam")(lr=0.01).build(per_entry=True)
    setting = Setting(it.network, lambda key: {"params": fresh}, 0.01, jax.random.key(1))
    tx = Redo(tau=0.0, every=3).optimizer(inner, setting)
    _, activations, _ = it.apply({"params": params}, x)
    grads = jax.tree.map(lambda p: jnp.full(p.shape, 2.0), params)
    update, plain_update = jax.jit(tx.update), jax.jit(inner.update)
    state, plain = tx.init(params), inner.init(params)
    for _ in range(3):
        updates, state = update(grads, state, params, activations=activations)
        plain_updates, plain = plain_update(grads, plain, params)
    marks = entries_by_hand(params)
    trees, kept = (
        [t for t in jax.tree.leaves(s, is_leaf=lambda node: isinstance(node, dict)) if isinstance(t, dict)]
        for s in (state.inner, plain)
    )
    assert len(trees) == len(kept) == 4
    for after, before in zip(trees, kept, strict=True):
        jax.tree.map(lambda a, b, m: np.testing.assert_array_equal(a, np.where(m, 0, b)), after, before, marks)
    jax.tree.map(lambda u, p, m: np.testing.assert_array_equal(u[~m], p[~m]), updates, plain_updates, marks)
    # Deviations: outgoing ones of a recycled unit are zero, incoming ones those of the fresh draw.
    recycled = optax.apply_updates(params, updates)
    assert not np.any(recycled["advantage_hidden"]["noise_kernel"][0::64])
    rows = np.delete(np.arange(fresh["value_hidden"]["kernel"].shape[0]).reshape(-1, 64), UNITS, axis=1)
    for leaf in ("kernel", "noise_kernel"):
        np.testing.assert_allclose(
            *(np.asarray(tree["value_hidden"][leaf])[rows][..., UNITS] for tree in (recycled, fresh)), atol=1e-5
        )
    biases = (np.asarray(tree["value_hidden"]["noise_bias"])[UNITS] for tree in (recycled, fresh))
    np.testing.assert_allclose(*biases, atol=1e-5)


def test_redo_in_a_plain_optax_loop_on_the_nature_network():
    """Three quarters of two layers' channels and of the hidden units are dead; compiled once, they come back."""
    network = networks.get("nature")(16).build(Architecture(Regression(-1.0, 1.0), predictions=3))
    rng = np.random.default_rng(3)
    x = rng.integers(0, 256, (16, 16, 16, 2)).astype(np.uint8)
    y = jnp.asarray(np.sign(rng.normal(size=(16, 3))), jnp.float32)
    initial = network.init(jax.random.key(0), x)["params"]
    for layer in network.units:
        if layer.name != "conv_1":
            dead = jnp.arange(layer.units) < layer.units * 3 // 4
            initial = set_at(initial, layer.bias, jnp.where(dead, -1e3, get_at(initial, layer.bias)))
    setting = Setting(network, lambda key: network.init(key, x), 3e-3, jax.random.key(1))

    def loss_fn(params):
        outputs, activations, _ = network.apply({"params": params}, x)
        return jnp.mean(jnp.square(outputs - y)), activations

    def fit(tx):
        @jax.jit
        def step(params, state):
            (_, activations), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
            updates, state = tx.update(grads, state, params, activations=activations)
            return optax.apply_updates(params, updates), state

        params, state = initial, tx.init(initial)
        for _ in range(30):
            params, state = step(params, state)
        assert step._cache_size() == 1
        loss, activations = jax.jit(loss_fn)(params)
        used = [np.any(np.asarray(a.post) > 0, tuple(range(a.post.ndim - 1))).mean() for a in activations.values()]
        return float(loss), dict(zip(activations, used, strict=True))

    loss, alive = fit(Redo(tau=0.0, every=5).optimizer(optax.adam(3e-3), setting))
    loss_without, alive_without = fit(optax.with_extra_args_support(optax.adam(3e-3)))
    for name in ("conv_0", "conv_2", "hidden"):
        assert alive_without[name] <= 0.25
        assert alive[name] > 0.7
    assert np.isfinite(loss)
    assert loss < loss_without
