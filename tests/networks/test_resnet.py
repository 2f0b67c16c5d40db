"""ResNet-18: sizes by hand, the forward pass against torch, and its unit graph by what recycling does to the output."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import C51, build, randomised, shapes

from plasticity.errors import UserError
from plasticity.heads import Softmax
from plasticity.mitigations.recycling import overwrite
from plasticity.network import get_at, norm_affine_mask, set_at

X = np.random.default_rng(0).normal(size=(3, 8, 6, 2)).astype(np.float32)
BLOCKS = [f"stage_{i}_block_{j}" for i in range(4) for j in range(2)]
OPTIONS = {
    "plain": {},
    "batch norm": {"normalization": "batch"},
    "crelu dueling": {"activation": "crelu", "dueling": True},
}


@lru_cache
def case(option):
    """(network, variables that are random everywhere, compiled forward pass) of the smallest one."""
    network = build("resnet18(2)", **OPTIONS[option])
    variables = randomised(network, X)
    if option == "batch norm":
        rng = np.random.default_rng(2)
        stats = jax.eval_shape(network.init, jax.random.key(0), X)["batch_stats"]
        variables["batch_stats"] = jax.tree.map(lambda s: jnp.asarray(rng.uniform(0.5, 2, s.shape), s.dtype), stats)
    return network, variables, jax.jit(network.apply)


# Sizes --------------------------------------------------------------------------------------------------------------

CIFAR = (1, 32, 32, 3)
SIZES = [
    # The CIFAR form with batch norm has 11,173,962; here are 4,800 biases more, one a channel of each convolution.
    ("resnet18", {"normalization": "batch"}, 11_173_962 + 4_800),
    # Without the scale and offset of each of these channels.
    ("resnet18", {}, 11_173_962 + 4_800 - 2 * 4_800),
    # Width 1: stem 27 + 1; stage 0: 4 x 10; stage 1: 18 + 2, 3 x 38, skip 2 + 2; stage 2: 72 + 4, 3 x 148, skip 8 + 4;
    # stage 3: 288 + 8, 3 x 584, skip 32 + 8; output 80 + 10
    ("resnet18(1)", {}, 28 + 40 + 138 + 532 + 2_088 + 90),
    # A stream has a hidden layer: 2 (64 + 8); value 9, advantages 90 in the place of 90.
    ("resnet18(1)", {"dueling": True}, 28 + 40 + 138 + 532 + 2_088 + 144 + 9 + 90),
    # CReLU: inputs doubled except of the stem, a skip in every block. Stage 0: 4 x 19, 2 x 3; stage 1: 38, 3 x 74,
    # skips 6 + 10; stage 2: 148, 3 x 292, 20 + 36; stage 3: 584, 3 x 1,160, 72 + 136; output 170
    ("resnet18(1)", {"activation": "crelu"}, 28 + 82 + 276 + 1_080 + 4_272 + 170),
]


@pytest.mark.parametrize(("spec", "options", "expected"), SIZES)
def test_number_of_parameters_by_hand(spec, options, expected):
    network = build(spec, Softmax(1), 10, **options)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes(network, CIFAR))) == expected


def test_skips_are_convolutions_where_shapes_change_only():
    for options, expected in (({}, BLOCKS[2::2]), ({"activation": "crelu"}, BLOCKS)):
        params = shapes(build("resnet18(2)", **options), CIFAR)
        assert {name for name in params if name.endswith("_skip")} == {f"{name}_skip" for name in expected}


@pytest.mark.parametrize("options", [{}, {"dueling": True, "head": C51}])
@pytest.mark.parametrize("spec", ["resnet18(2)", "resnet18(2, dtype=bfloat16)"])
def test_outputs_and_activations(spec, options):
    network = build(spec, **options)
    x = jax.ShapeDtypeStruct((3, 16, 16, 1), jnp.uint8)
    output, activations, state = jax.eval_shape(
        lambda x: network.apply(network.init(jax.random.key(0), x), x, jax.random.key(1)), x
    )
    assert (output.shape, output.dtype) == ((3, 4 * options.get("head", Softmax(1)).outputs), jnp.float32)
    assert state == {}
    end = {"value_hidden", "advantage_hidden"} if "dueling" in options else set()
    assert set(activations) == {"stem", *BLOCKS, *(f"{b}_inner" for b in BLOCKS)} | end
    assert {a.dtype for pair in activations.values() for a in pair} == {
        jnp.dtype(jnp.bfloat16 if "bfloat16" in spec else jnp.float32)
    }
    sizes = {"stem": (16, 2), "stage_0_block_1": (16, 2), "stage_1_block_0": (8, 4), "stage_3_block_1_inner": (2, 16)}
    for name, (size, channels) in sizes.items():
        assert activations[name].post.shape == (3, size, size, channels)
    assert set(network.features) == (end or {"stage_3_block_1"})


def test_what_is_no_image_is_a_clear_error():
    with pytest.raises(UserError, match="needs images"):
        shapes(build("resnet18(2)"), (1, 784))


# The forward pass ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["plain", "batch norm"])
def test_forward_pass_is_torchs(option):
    """As He et al. have it: padding of one pixel, stride in the first convolution of a stage and in its skip."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    _, variables, apply = case(option)
    params, stats = (
        jax.tree.map(lambda p: torch.tensor(np.asarray(p)), variables.get(name, {}))
        for name in ("params", "batch_stats")
    )

    def conv(name, x, stride=1):
        kernel = params[name]["kernel"].permute(3, 2, 0, 1)
        x = functional.conv2d(x, kernel, params[name]["bias"], stride, padding=kernel.shape[-1] // 2)
        if option == "plain":
            return x
        own, affine = stats[f"norm_{name}"], params[f"norm_{name}"]
        return functional.batch_norm(x, own["mean"], own["var"], affine["scale"], affine["bias"], eps=1e-5)

    x = functional.relu(conv("stem", torch.tensor(X).permute(0, 3, 1, 2)))
    for name in BLOCKS:
        stride = 2 if name in BLOCKS[2::2] else 1
        y = functional.relu(conv(f"{name}_inner", x, stride))
        y = conv(f"{name}_outer", y)
        x = functional.relu(y + (conv(f"{name}_skip", x, stride) if stride == 2 else x))
    expected = functional.linear(x.mean((2, 3)), params["output"]["kernel"].T, params["output"]["bias"]).numpy()
    found, activations, _ = apply(variables, X)
    np.testing.assert_allclose(activations["stage_3_block_1"].post, x.permute(0, 2, 3, 1), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


# The unit graph -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", OPTIONS)
def test_units_are_the_channels_inside_the_blocks(option):
    network, variables, _ = case(option)
    params = variables["params"]
    inside = [layer for layer in network.units if layer.name.endswith("_inner")]
    assert [layer.name for layer in inside] == [f"{name}_inner" for name in BLOCKS]
    for layer, name in zip(inside, BLOCKS, strict=True):
        assert [o.kernel for o in layer.outgoing] == [(f"{name}_outer", "kernel")]
        assert get_at(params, layer.kernel).shape[-1] == layer.units
        assert (
            layer.outgoing[0].rows(jnp.arange(layer.units), params).shape
            == params[f"{name}_outer"]["kernel"].shape[2:3]
        )
    streams = {"value_hidden", "advantage_hidden"} if "dueling" in option else set()
    assert {layer.name for layer in network.units} - {layer.name for layer in inside} == streams


@pytest.mark.parametrize(
    ("spec", "activation", "norms"),
    [("resnet18(2)", "relu", 20), ("resnet18(2)", "crelu", 25), ("impala(4)", "relu", 14)],
)
def test_penalties_leave_all_norms_alone_those_of_the_stream_too(spec, activation, norms):
    network = build(spec, normalization="layer", activation=activation)
    params = shapes(network, CIFAR)
    found = {path[0].key for path, m in jax.tree_util.tree_leaves_with_path(norm_affine_mask(params, network)) if m}
    assert found == {name for name in params if name.startswith("norm_")}
    assert len(found) == norms


@pytest.mark.parametrize("option", ["plain", "crelu dueling"])
def test_recycling_dead_channels_leaves_the_output_unchanged_to_the_bit(option):
    """Block by block (by an identity, by a skip that is a convolution, the last one into the pooling), and all at once.

    A channel is dead by a bias far below, under CReLU because nothing comes in.
    """
    network, variables, apply = case(option)
    params, fresh = variables["params"], randomised(network, X, seed=3)["params"]
    layers = [layer for layer in network.units if layer.name.endswith("_inner")]
    for chosen in ([layers[0]], [layers[2]], [layers[-1]], layers):
        masks = {layer.name: jnp.arange(layer.units) == 1 for layer in chosen}
        killed = params
        for layer in chosen:
            paths, low = ((layer.bias,), -1e3) if option == "plain" else ((layer.kernel, layer.bias), 0.0)
            for path in paths:
                killed = set_at(killed, path, jnp.where(masks[layer.name], low, get_at(killed, path)))
        recycled, _ = overwrite(killed, fresh, masks, chosen)
        before, dead, _ = apply({"params": killed}, X)
        after, alive, _ = apply({"params": recycled}, X)
        np.testing.assert_array_equal(after, before)
        for layer in chosen:
            channels = np.flatnonzero(np.tile(masks[layer.name], dead[layer.name].post.shape[-1] // layer.units))
            assert not np.any(np.asarray(dead[layer.name].post)[..., channels])
            assert np.all(np.asarray(alive[layer.name].pre != dead[layer.name].pre)[..., 1])


def test_a_channel_of_the_stream_cannot_be_recycled_by_its_kernels():
    """Why it is no unit: the identity carries it on, also where every kernel of its stage that reads it is cut."""
    _, variables, apply = case("plain")
    params = variables["params"]

    def change(name, change):
        layer = params[name]
        return {**params, name: {**layer, "kernel": change(layer["kernel"])}}

    params = change("stage_0_block_1_inner", lambda kernel: kernel.at[:, :, 0].set(0.0))
    moved = change("stage_0_block_0_outer", lambda kernel: kernel.at[..., 0].add(1.0))
    assert np.any(np.abs(apply({"params": moved}, X)[0] - apply({"params": params}, X)[0]) > 1e-3)
