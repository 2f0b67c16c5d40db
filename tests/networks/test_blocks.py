"""Residual blocks in an MLP, plain, as SimBa and as SimbaV2 have them: sizes, forward passes, unit graphs."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import C51, build, shapes

from plasticity.errors import UserError
from plasticity.heads import Softmax
from plasticity.mitigations import compose, mitigations
from plasticity.mitigations.recycling import overwrite
from plasticity.network import get_at, norm_affine_mask, set_at
from plasticity.networks.base import Architecture, Block
from plasticity.networks.options import Kernels
from plasticity.spec import build as members

X = np.random.default_rng(0).normal(size=(5, 3, 3, 1)).astype(np.float32)
WIDTH, DEPTH, EXPANSION, PREDICTIONS = 4, 2, 3, 4
KINDS = ("residual", "simba", "hyperspherical")
every_kind = pytest.mark.parametrize("kind", KINDS)
OPTIONS = {"plain": {}, "layer norm": {"normalization": "layer"}, "crelu": {"activation": "crelu", "dueling": True}}
GRID = [(kind, option) for kind in KINDS for option in OPTIONS]
grid = pytest.mark.parametrize(("kind", "option"), GRID)


@lru_cache
def case(kind, option="plain"):
    """(network, parameters that are random everywhere)."""
    network = build(f"mlp({WIDTH}, {DEPTH})", block=Block(kind, EXPANSION), **OPTIONS[option])
    rng = np.random.default_rng(1)
    drawn = shapes(network, X.shape)
    return network, jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), drawn)


# Sizes --------------------------------------------------------------------------------------------------------------

# Nine inputs, width 8, two blocks with 4 x 8 units, 4 predictions. Embedding 9 x 8 + 8; block 8 x 32 + 32 + 32 x 8 + 8
# and, for simba, 16 of a norm; output 8 x 4 + 4. Hyperspherical: (9 + 1) x 8 + 8; a block as above; head 64 + 8.
SIZES = [
    ("residual", {}, 80 + 2 * 552 + 36),
    ("simba", {}, 80 + 2 * 568 + 16 + 36),
    ("simba", {"dueling": True}, 80 + 2 * 568 + 16 + 2 * 72 + 9 + 36),
    ("simba", {"normalization": "layer"}, 80 + 2 * 568 + 16 + 36 + 2 * 64),
    ("hyperspherical", {}, 88 + 2 * 552 + 72 + 36),
    ("hyperspherical", {"dueling": True}, 88 + 2 * 552 + 2 * 72 + 9 + 36),
    ("hyperspherical", {"activation": "crelu"}, 88 + 2 * (552 + 256) + 72 + 36),
]


@pytest.mark.parametrize(("kind", "options", "expected"), SIZES)
def test_number_of_parameters_by_hand(kind, options, expected):
    network = build("mlp(8, 2)", block=Block(kind, 4), **options)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes(network, X.shape))) == expected


@grid
@pytest.mark.parametrize("head", [Softmax(1), C51])
def test_outputs_and_what_is_measured(kind, option, head):
    network = build("mlp(4, 2)", head, block=Block(kind, 3), **OPTIONS[option])
    output, activations, state = jax.eval_shape(
        lambda x: network.apply(network.init(jax.random.key(0), x), x), jax.ShapeDtypeStruct((3, 7), jnp.uint8)
    )
    assert (output.shape, output.dtype) == ((3, PREDICTIONS * head.outputs), jnp.float32)
    assert state == {}
    streams = ["value_hidden", "advantage_hidden"] if option == "crelu" and kind != "hyperspherical" else []
    assert set(activations) == {"block_0", "block_1", "features", *streams}
    assert activations["block_1"].pre.shape == (3, 12)
    assert activations["features"].post.shape == (3, 4)
    assert network.features == (tuple(streams) or ("features",))


# Forward passes -----------------------------------------------------------------------------------------------------


def layer_norm(z, own):
    centred = z - z.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * own["scale"] + own["bias"]


def unit(v):
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


class Rewrite:
    """In float64 numpy, written from the docstrings."""

    def __init__(self, params, option):
        self.params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
        self.option, self.pre = option, {}

    def dense(self, name, x):
        own = self.params[name]
        return x @ own["kernel"] + own.get("bias", 0.0)

    def phi(self, name, z):
        if self.option == "layer norm":
            z = layer_norm(z, self.params[f"norm_{name}"])
        self.pre[name] = z
        return np.concatenate([np.maximum(z, 0), np.maximum(-z, 0)], -1) if self.option == "crelu" else np.maximum(z, 0)

    def norm(self, name, x):
        return layer_norm(x, self.params[f"norm_{name}"]) if f"norm_{name}" in self.params else x

    def residual(self, x):
        x = self.dense("embedding", x)
        for i in range(DEPTH):
            y = self.phi(f"block_{i}", self.dense(f"block_{i}", self.norm(f"block_{i}_stream", x)))
            x = x + self.dense(f"block_{i}_out", y)
        features = self.norm("features", x)
        return features, lambda prefix: self.dense(
            f"{prefix}output",
            self.phi(f"{prefix}hidden", self.dense(f"{prefix}hidden", features)) if prefix else features,
        )

    simba = residual

    def hyperspherical(self, x):
        def scaled(name, x):
            """With start and scale equal, what is stored is what is applied."""
            return self.dense(name, x) * self.params[name]["gain"]

        x = unit(np.concatenate([x, np.full((len(x), 1), 3.0)], 1))
        h = unit(scaled("embedding", x))
        for i in range(DEPTH):
            y = unit(self.dense(f"block_{i}_out", self.phi(f"block_{i}", scaled(f"block_{i}", h))))
            a = self.params[f"block_{i}_mix"]["gain"] * (1 / (DEPTH + 1)) / (1 / np.sqrt(WIDTH))
            h = unit((1 - a) * h + a * y)
        return h, lambda prefix: self.dense(f"{prefix}output", scaled(f"{prefix}head", h))

    def outputs(self, kind):
        features, end = getattr(self, kind)(X.reshape(len(X), -1).astype(np.float64))
        if self.option != "crelu":
            return features, end("")
        value, advantage = end("value_"), end("advantage_")
        return features, value + advantage - advantage.mean(1, keepdims=True)


@grid
def test_forward_pass_against_a_rewrite(kind, option):
    network, params = case(kind, option)
    output, activations, _ = jax.jit(network.apply)({"params": params}, X)
    rewrite = Rewrite(params, option)
    features, expected = rewrite.outputs(kind)
    for name, pre in rewrite.pre.items():
        np.testing.assert_allclose(activations[name].pre, pre, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(activations["features"].post, features, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(output, expected, rtol=2e-4, atol=2e-3)


def test_hyperspherical_starts_as_the_source_has_it():
    """Columns of norm 1; scalers stored at sqrt(2 / d) and in a block at half of it; a stored at 1 / sqrt(d)."""
    network = build("mlp(8, 2)", block=Block("hyperspherical", 4))
    params = network.init(jax.random.key(0), X)["params"]
    for name, layer in params.items():
        if "kernel" in layer:
            np.testing.assert_allclose(np.linalg.norm(layer["kernel"], axis=0), 1, rtol=1e-6, err_msg=name)
    stored = {name: {round(float(g), 5) for g in layer["gain"]} for name, layer in params.items() if "gain" in layer}
    small = {round(8**-0.5, 5)}
    expected = {"embedding": {0.5}, "head": {0.5}, "block_0": {0.25}, "block_1": {0.25}}
    assert stored == {**expected, "block_0_mix": small, "block_1_mix": small}
    assert not np.any(params["output"]["bias"])
    assert {name for name, layer in params.items() if "bias" in layer} == {"output"}
    # A zero image is a direction too, and all features lie on the sphere.
    for x in (X, 0 * X, 1e4 * X):
        _, activations, _ = network.apply({"params": params}, x)
        np.testing.assert_allclose(np.linalg.norm(activations["features"].post, axis=1), 1, rtol=1e-5)


def test_a_block_of_which_all_units_are_dead_has_finite_gradients():
    network, params = case("hyperspherical")
    params = set_at(params, ("block_0", "gain"), jnp.zeros(WIDTH * EXPANSION))
    grads = jax.grad(lambda p: jnp.sum(network.apply({"params": p}, X)[0] ** 2))(params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))


# Unit graphs --------------------------------------------------------------------------------------------------------


@grid
def test_the_unit_graph_names_what_feeds_and_reads_the_layer_inside_each_block(kind, option):
    network, params = case(kind, option)
    graph = {layer.name: layer for layer in network.units}
    streams = {"value_hidden", "advantage_hidden"} if option == "crelu" and kind != "hyperspherical" else set()
    assert set(graph) == {"block_0", "block_1"} | streams
    for name in ("block_0", "block_1"):
        layer = graph[name]
        assert layer.units == WIDTH * EXPANSION
        paths = [layer.kernel, layer.bias, layer.norm_scale, layer.norm_bias, *layer.further]
        named = {path for path in paths if path is not None}
        feeding = {(module, leaf) for module in (name, f"norm_{name}") if module in params for leaf in params[module]}
        assert named == feeding
        assert [o.kernel for o in layer.outgoing] == [(f"{name}_out", "kernel")]
    outputs = ("advantage_output", "value_output") if option == "crelu" else ("output",)
    assert (network.output_kernel, *network.other_outputs) == tuple((name, "kernel") for name in outputs)
    found = {path[0].key for path, m in jax.tree_util.tree_leaves_with_path(norm_affine_mask(params, network)) if m}
    assert found == {name for name in params if name.startswith("norm_")}


@every_kind
@pytest.mark.parametrize("option", ["plain", "crelu"])
def test_recycling_dead_units_leaves_the_output_unchanged_to_the_bit(kind, option):
    """Each layer and all at once. Dead are units that nothing comes into: no bias far below is at hand on a sphere."""
    network, params = case(kind, option)
    fresh = jax.tree.map(lambda p: p[::-1] + 1, params)
    apply = jax.jit(network.apply)
    for chosen in (*((layer,) for layer in network.units), network.units):
        masks = {layer.name: jnp.isin(jnp.arange(layer.units), jnp.array([0, 3])) for layer in chosen}
        killed = params
        for layer in chosen:
            for path in (layer.kernel, layer.bias, *layer.further):
                if path is not None:
                    killed = set_at(killed, path, jnp.where(masks[layer.name], 0.0, get_at(killed, path)))
        recycled, _ = overwrite(killed, fresh, masks, chosen)
        before, after = (apply({"params": p}, X) for p in (killed, recycled))
        np.testing.assert_array_equal(after[0], before[0])
        for layer in chosen:
            assert not np.any(before[1][layer.name].post[:, [0, 3]])
            assert np.all(np.any(np.asarray(after[1][layer.name].pre)[:, [0, 3]] != 0, axis=0))


# As mitigations -----------------------------------------------------------------------------------------------------


@every_kind
def test_only_the_mlp_has_blocks(kind):
    architecture = compose.architecture(members(kind, mitigations), Architecture(Softmax(3)))
    assert architecture.block == Block(kind, 1 if kind == "residual" else 4)
    for spec in ("minatar", "nature", "impala", "resnet18"):
        with pytest.raises(UserError, match=f"{kind} puts blocks in the place .* allowed is the network mlp"):
            build(spec, block=architecture.block)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"kernels": Kernels("weight_norm")}, "cannot be of another kind"), ({"noise": 0.5}, "noise must be 0, got 0.5")],
)
def test_what_a_sphere_does_not_have_is_a_clear_error(options, message):
    with pytest.raises(UserError, match=message):
        build("mlp", block=Block("hyperspherical", 4), **options)
