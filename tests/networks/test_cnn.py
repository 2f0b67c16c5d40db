"""The networks of deep RL: sizes by hand, outputs against a float64 rewrite and torch, two streams."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import ATARI, C51, SCALAR, build, convolve, randomised, shapes

from plasticity.errors import UserError
from plasticity.heads import Categorical
from plasticity.networks import Architecture

RNG = np.random.default_rng(0)

# Sizes ------------------------------------------------------------------------------------------------------------

SIZES = [
    # convolutions 8,224 + 32,832 + 36,928; hidden 3,136 x 512 + 512; output 512 x 4 + 4
    ("nature(padding=VALID)", ATARI, {}, 1_686_180),
    # hidden 7,744 x 512 + 512
    ("nature", ATARI, {}, 4_045_476),
    # two scales and offsets a channel or unit: 2 (32 + 64 + 64 + 512)
    ("nature(padding=VALID)", ATARI, {"normalization": "layer"}, 1_686_180 + 1_344),
    # every reader sees twice the features: 8,224 + 65,600 + 73,792 + (6,272 x 512 + 512) + (1,024 x 4 + 4)
    ("nature(padding=VALID)", ATARI, {"activation": "crelu"}, 3_363_492),
    # 77,984 + 2 x 1,606,144 + (512 + 1) + 2,052
    ("nature(padding=VALID)", ATARI, {"dueling": True}, 3_292_837),
    # a deviation for each weight behind the torso
    ("nature(padding=VALID)", ATARI, {"noise": 0.5}, 1_686_180 + 1_606_144 + 2_052),
    # output 512 x 4 x 51 + 4 x 51
    ("nature(padding=VALID)", ATARI, {"head": C51}, 1_686_180 - 2_052 + 104_652),
    # Rainbow: 77,984 + 2 (2 x 1,606,144 + (512 x 51 + 51) + 104,652)
    ("nature(padding=VALID)", ATARI, {"head": C51, "dueling": True, "noise": 0.5}, 6_764_190),
    # 592 + (8 x 8 x 16 x 128 + 128) + (128 x 4 + 4)
    ("minatar", (1, 10, 10, 4), {}, 592 + 131_200 + 516),
    # stages (592 + 4 x 2,320) + (4,640 + 4 x 9,248) + 5 x 9,248; hidden 11 x 11 x 32 x 256 + 256; output 256 x 4 + 4
    ("impala", ATARI, {}, 9_872 + 41_632 + 46_240 + 991_488 + 1_028),
    # hidden_0 10 x 16 + 16; 2 x (16 x 16 + 16); value 17; advantage 4 x 17
    ("mlp(16, 2)", (1, 10), {"dueling": True}, 176 + 544 + 17 + 68),
]


@pytest.mark.parametrize(("spec", "input_shape", "options", "expected"), SIZES)
def test_number_of_parameters_by_hand(spec, input_shape, options, expected):
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes(build(spec, **options), input_shape))) == expected


@pytest.mark.parametrize(("spec", "features"), [("nature", 7_744), ("nature(padding=VALID)", 3_136)])
def test_features_before_the_hidden_layer(spec, features):
    """Dopamine's 11 x 11 x 64, and the original's 7 x 7 x 64."""
    network = build(spec)
    assert shapes(network, ATARI)["hidden"]["kernel"].shape == (features, 512)
    _, activations, _ = jax.eval_shape(
        lambda x: network.apply(network.init(jax.random.key(0), x), x), jax.ShapeDtypeStruct(ATARI, jnp.uint8)
    )
    assert list(activations) == ["conv_0", "conv_1", "conv_2", "hidden"]
    assert math.prod(activations["conv_2"].post.shape[1:]) == features


OPTIONS = {
    "plain": {},
    "c51": {"head": C51},
    "one prediction": {"predictions": 1},
    "layer norm": {"normalization": "layer"},
    "crelu": {"activation": "crelu"},
    "dueling c51": {"dueling": True, "head": C51},
    "noise": {"noise": 0.5},
    "rainbow": {"dueling": True, "noise": 0.5, "head": C51, "predictions": 6},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("spec", ["nature", "minatar", "impala", "mlp", "nature(dtype=bfloat16)"])
def test_outputs_are_float32_and_prediction_major(spec, options):
    network = build(spec, **OPTIONS[options])
    head, predictions = OPTIONS[options].get("head", SCALAR), OPTIONS[options].get("predictions", 4)
    x = jax.ShapeDtypeStruct((3, 12, 12, 4), jnp.uint8)
    output, activations, state = jax.eval_shape(
        lambda x: network.apply(network.init(jax.random.key(0), x), x, jax.random.key(1)), x
    )
    assert (output.shape, output.dtype) == ((3, predictions * head.outputs), jnp.float32)
    dtype = jnp.bfloat16 if "bfloat16" in spec else jnp.float32
    assert {a.dtype for pair in activations.values() for a in pair} == {jnp.dtype(dtype)}
    assert state == {}
    assert {layer.name for layer in network.units} <= set(activations)


def test_a_traced_slope_leaves_the_compute_type_alone():
    def apply(slope):
        network = build("nature(8, dtype=bfloat16)", activation="leaky_relu", slope=slope)
        x = jnp.zeros((1, 12, 12, 2))
        return network.apply(network.init(jax.random.key(0), x), x)[1]

    activations = jax.eval_shape(apply, jnp.float32(0.1))
    assert {a.dtype for pair in activations.values() for a in pair} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [
        ("nature", (1, 784), r"needs images \[batch, height, width, channels\], got inputs of shape \[1, 784\]"),
        ("impala", (1, 28, 28), r"got inputs of shape \[1, 28, 28\]"),
        ("nature(padding=VALID)", (1, 20, 20, 4), "layer conv_2 reads 1 x 1, smaller than the kernel of 3 x 3"),
        ("minatar", (1, 2, 8, 4), "layer conv_0 reads 2 x 8, smaller than the kernel of 3 x 3"),
    ],
)
def test_inputs_that_do_not_fit_are_a_clear_error(spec, shape, message):
    with pytest.raises(UserError, match=message):
        shapes(build(spec), shape)


# The forward pass -------------------------------------------------------------------------------------------------


class Rewrite:
    """The forward pass in float64 numpy, written from the docstrings."""

    def __init__(self, params, normalization, activation, padding):
        self.params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
        self.normalization, self.activation, self.padding = normalization, activation, padding

    def activate(self, name, z):
        if self.normalization == "layer":
            axes = tuple(range(1, z.ndim))
            centred = z - z.mean(axes, keepdims=True)
            z = centred / np.sqrt((centred**2).mean(axes, keepdims=True) + 1e-6)
            z = z * self.params[f"norm_{name}"]["scale"] + self.params[f"norm_{name}"]["bias"]
        if self.activation == "crelu":
            return np.concatenate([np.maximum(z, 0), np.maximum(-z, 0)], -1)
        return np.maximum(z, 0)

    def conv(self, name, x, stride):
        return convolve(x, self.params[name]["kernel"], stride, self.padding) + self.params[name]["bias"]

    def dense(self, name, x):
        return x @ self.params[name]["kernel"] + self.params[name]["bias"]

    def end(self, x, dueling, predictions, outputs):
        x = x.reshape(len(x), -1)
        if not dueling:
            return self.dense("output", self.activate("hidden", self.dense("hidden", x)))
        value, advantage = (
            self.dense(f"{s}_output", self.activate(f"{s}_hidden", self.dense(f"{s}_hidden", x)))
            for s in ("value", "advantage")
        )
        advantage = advantage.reshape(len(x), predictions, outputs)
        q = value.reshape(len(x), 1, outputs) + advantage - advantage.mean(1, keepdims=True)
        return q.reshape(len(x), -1)

    def nature(self, x, **end):
        for i, stride in enumerate((4, 2, 1)):
            x = self.activate(f"conv_{i}", self.conv(f"conv_{i}", x, stride))
        return self.end(x, **end)

    def minatar(self, x, **end):
        return self.end(self.activate("conv_0", self.conv("conv_0", x, 1)), **end)

    def impala(self, x, **end):
        for i in range(3):
            x = max_pool(self.conv(f"stage_{i}", x, 1))
            for j in range(2):
                name = f"stage_{i}_block_{j}"
                y = self.conv(f"{name}_inner", self.activate(f"{name}_stream", x), 1)
                x = x + self.conv(f"{name}_outer", self.activate(f"{name}_inner", y), 1)
        return self.end(self.activate("stream", x), **end)


def max_pool(x):
    """3 x 3 with stride 2; SAME, so that an even size is padded behind only."""
    before = [1 if n % 2 else 0 for n in x.shape[1:3]]
    x = np.pad(x, [(0, 0), (before[0], 1), (before[1], 1), (0, 0)], constant_values=-np.inf)
    rows, columns = ((n - 3) // 2 + 1 for n in x.shape[1:3])
    taps = [x[:, a : a + 2 * rows : 2, b : b + 2 * columns : 2] for a in range(3) for b in range(3)]
    return np.max([t[:, :rows, :columns] for t in taps], axis=0)


PASSES = [
    ("nature(16, padding=VALID)", 36, {}),
    ("nature(16)", 21, {"normalization": "layer"}),
    ("nature(16)", 20, {"activation": "crelu", "dueling": True}),
    ("nature(16, padding=VALID)", 36, {"dueling": True, "normalization": "layer", "head": Categorical(3, -1.0, 1.0)}),
    ("minatar(16)", 10, {"dueling": True}),
    ("minatar(16)", 10, {"activation": "crelu", "normalization": "layer"}),
    ("impala(16)", 13, {"dueling": True}),
    ("impala(16)", 12, {"normalization": "layer"}),
]


@pytest.mark.parametrize(("spec", "size", "options"), PASSES)
def test_forward_pass_against_a_rewrite(spec, size, options):
    network = build(spec, **options)
    x = RNG.normal(size=(3, size, size + 1, 2)).astype(np.float32)
    variables = randomised(network, x)
    found = jax.jit(network.apply)(variables, x)[0]
    name = spec.partition("(")[0]
    padding = "VALID" if "VALID" in spec or name == "minatar" else "SAME"
    rewrite = Rewrite(
        variables["params"], options.get("normalization", "none"), options.get("activation", "relu"), padding
    )
    head = options.get("head", SCALAR)
    expected = getattr(rewrite, name)(
        x.astype(np.float64), dueling=options.get("dueling", False), predictions=4, outputs=head.outputs
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_nature_is_torchs_on_a_screen():
    """On 84 x 84 with VALID padding; Torch's maps are CHW and are flattened as HWC here."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    network = build("nature(padding=VALID)")
    screens = RNG.integers(0, 256, (2, 84, 84, 4)).astype(np.uint8)
    variables = randomised(network, screens)
    params = jax.tree.map(lambda p: torch.tensor(np.asarray(p)), variables["params"])
    x = torch.tensor(screens).permute(0, 3, 1, 2).float() / 255
    for i, stride in enumerate((4, 2, 1)):
        layer = params[f"conv_{i}"]
        x = functional.relu(functional.conv2d(x, layer["kernel"].permute(3, 2, 0, 1), layer["bias"], stride))
    x = x.permute(0, 2, 3, 1).flatten(1)
    for name in ("hidden", "output"):
        x = functional.linear(functional.relu(x), params[name]["kernel"].T, params[name]["bias"])
    np.testing.assert_allclose(jax.jit(network.apply)(variables, screens)[0], x.numpy(), rtol=1e-3, atol=1e-4)


def test_both_forms_of_the_convolution_and_bfloat16_give_the_same_network():
    x = RNG.normal(size=(2, 20, 20, 2)).astype(np.float32)
    variables = randomised(build("nature(16)"), x)
    matmul, lax, auto, low = (
        np.asarray(jax.jit(build(f"nature(16, {more})").apply)(variables, x)[0])
        for more in ("conv=matmul", "conv=lax", "conv=auto", "dtype=bfloat16")
    )
    np.testing.assert_allclose(matmul, lax, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(auto, lax, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(low, lax, atol=0.05 * np.abs(lax).max())
    assert np.any(low != lax)


@pytest.mark.parametrize("spec", ["nature(8)", "mlp(8)"])
def test_bytes_are_grey_levels(spec):
    screens = RNG.integers(0, 256, (2, 9, 9, 2)).astype(np.uint8)
    network = build(spec)
    variables = randomised(network, screens)
    apply = jax.jit(network.apply)
    expected = apply(variables, screens.astype(np.float32) / 255)[0]
    np.testing.assert_allclose(apply(variables, screens)[0], expected, rtol=1e-5, atol=1e-6)
    # Other numbers are taken as they are.
    assert np.any(np.abs(apply(variables, screens.astype(np.int32))[0] - expected) > 1e-2)


def test_layer_norm_is_over_all_units_of_an_example():
    """In a feature map over positions and channels together; its scale and offset are one a channel."""
    network = build("minatar(8)", normalization="layer")
    x = RNG.normal(size=(3, 6, 6, 2)).astype(np.float32)
    params = randomised(network, x)["params"]
    assert params["norm_conv_0"]["scale"].shape == params["norm_conv_0"]["bias"].shape == (16,)
    params["norm_conv_0"] = {"scale": jnp.ones(16), "bias": jnp.zeros(16)}
    pre = np.asarray(network.apply({"params": params}, x)[1]["conv_0"].pre)
    np.testing.assert_allclose(pre.mean((1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(pre.std((1, 2, 3)), 1, rtol=1e-3)
    assert np.all(np.abs(pre.mean((1, 2))) > 1e-4)  # not each channel for itself
    params["norm_conv_0"] = {"scale": 1.0 + jnp.arange(16.0), "bias": -jnp.arange(16.0)}
    moved = np.asarray(network.apply({"params": params}, x)[1]["conv_0"].pre)
    np.testing.assert_allclose(moved, pre * (1 + np.arange(16)) - np.arange(16), rtol=1e-4, atol=1e-4)


# Two streams ------------------------------------------------------------------------------------------------------


def test_dueling_by_hand():
    """Value 5 and advantages 1, 2, 6 with mean 3: 3, 4, 8. Two outputs a prediction are centred each for itself."""
    for outputs, value, advantages, expected in (
        (1, [5], [1, 2, 6], [3, 4, 8]),
        (2, [5, 10], [1, 0, 2, 0, 6, 3], [3, 9, 4, 9, 8, 12]),
    ):
        head = Categorical(2, -1.0, 1.0) if outputs == 2 else SCALAR
        network = build("mlp(4, 1)", head, predictions=3, dueling=True)
        x = jnp.ones((2, 3))
        params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes(network, x.shape))
        params["value_output"]["bias"] = jnp.array(value, jnp.float32)
        params["advantage_output"]["bias"] = jnp.array(advantages, jnp.float32)
        np.testing.assert_allclose(network.apply({"params": params}, x)[0], [expected] * 2, rtol=1e-6)


def test_what_all_advantages_share_does_not_count():
    network = build("minatar(8)", C51, dueling=True)
    x = RNG.normal(size=(3, 6, 6, 2)).astype(np.float32)
    variables = randomised(network, x)
    output = network.apply(variables, x)[0]
    variables["params"]["advantage_output"]["bias"] += 7.0
    np.testing.assert_allclose(network.apply(variables, x)[0], output, atol=1e-4)
    # The mean over predictions is the value stream's output.
    hidden = network.apply(variables, x)[1]["value_hidden"].post
    value = hidden @ variables["params"]["value_output"]["kernel"] + variables["params"]["value_output"]["bias"]
    np.testing.assert_allclose(output.reshape(3, 4, 51).mean(1), value, rtol=1e-4, atol=1e-4)


def test_the_options_of_an_architecture_are_all_tried_here():
    """A new one needs tests beside those above."""
    names = {f.name for f in dataclasses.fields(Architecture)}
    assert names == {
        *("head", "normalization", "activation", "slope", "predictions", "dueling", "noise"),
        *("block", "injectable"),  # test_blocks.py, test_injection.py
        *("auxiliary", "normalized_by"),  # test_auxiliary.py, mitigations/test_popart.py
        "bias",  # mitigations/test_norm_projection.py
        *("kernels", "init"),  # mitigations/test_kernel_parametrizations.py
    }
