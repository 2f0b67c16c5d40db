"""The convolutional networks for small images, and max pooling: against numpy and torch, in scan and under vmap."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import build, convolve, randomised, shapes

from plasticity.errors import UserError
from plasticity.heads import Softmax
from plasticity.networks.pooling import max_pool

RNG = np.random.default_rng(0)
HEAD = Softmax(10)
CIFAR = (1, 32, 32, 3)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


# Max pooling --------------------------------------------------------------------------------------------------------

SHAPES = [(2, 8, 6), (2, 7, 9), (3, 9, 10), (3, 3, 3), (5, 11, 14)]


def pooled(x, window):
    """One window after the other."""
    rows, columns = x.shape[1] // window, x.shape[2] // window
    y = np.zeros((len(x), rows, columns, x.shape[3]), x.dtype)
    for i, j in itertools.product(range(rows), range(columns)):
        y[:, i, j] = x[:, i * window : (i + 1) * window, j * window : (j + 1) * window].max((1, 2))
    return y


@pytest.mark.parametrize(("window", "height", "width"), SHAPES)
def test_max_pooling_against_a_loop_in_scan_and_under_vmap(window, height, width):
    """And its gradient, which goes to the largest entry of each window and to no other."""
    x, weights = normal(3, 2, height, width, 4), normal(3, 2, height // window, width // window, 4)
    expected = np.stack([pooled(a, window) for a in x])
    found = jax.jit(lambda x: jax.lax.scan(lambda _, a: (None, max_pool(a, window)), None, x)[1])(x)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(jax.vmap(lambda a: max_pool(a, window))(x), expected)

    gradient = jax.vmap(jax.grad(lambda a, w: jnp.sum(max_pool(a, window) * w)))(x, weights)
    owner = np.zeros(x.shape, np.float32)
    for i, j in itertools.product(range(height // window * window), range(width // window * window)):
        at = (slice(None), slice(None), i // window, j // window)
        owner[:, :, i, j] = np.where(x[:, :, i, j] == expected[at], weights[at], 0)
    np.testing.assert_array_equal(gradient, owner)


def test_max_pooling_is_torchs():
    torch = pytest.importorskip("torch")
    x = normal(2, 9, 8, 3)
    theirs = torch.nn.functional.max_pool2d(torch.tensor(x).permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(max_pool(x, 2), theirs)


def test_no_pooling_and_too_small_images():
    x = normal(2, 3, 3, 1)
    np.testing.assert_array_equal(max_pool(x, 1), x)
    with pytest.raises(UserError, match="max pooling reads 3 x 3, smaller than a window of 4 x 4"):
        max_pool(x, 4)


# Sizes --------------------------------------------------------------------------------------------------------------

SIZES = [
    # 75 x 64 + 64; 576 x 64 + 64; 4,096 x 256 + 256; 256 x 256 + 256; 2,570
    ("cnn", CIFAR, 4_864 + 36_928 + 1_048_832 + 65_792 + 2_570),
    # 28 x 28 x 1: 25 x 64 + 64; 7 x 7 x 64 = 3,136 features
    ("cnn", (1, 28, 28, 1), 1_664 + 36_928 + 803_072 + 65_792 + 2_570),
    # Without pooling 7 x 7 x 64 features.
    ("cnn(pool=1)", (1, 7, 7, 1), 1_664 + 36_928 + 803_072 + 65_792 + 2_570),
    # 1,216; 6,416; 400 x 100 + 100; 10,100; 1,010
    ("l2_init_cnn", CIFAR, 1_216 + 6_416 + 40_100 + 10_100 + 1_010),
    # 2,432; 18,496; 73,856; 512 x 128 + 128; 16,512; 1,290
    ("continual_imagenet_cnn", CIFAR, 2_432 + 18_496 + 73_856 + 65_664 + 16_512 + 1_290),
]


@pytest.mark.parametrize(("spec", "input_shape", "expected"), SIZES)
def test_number_of_parameters_by_hand(spec, input_shape, expected):
    found = shapes(build(spec, HEAD, predictions=1), input_shape)
    assert sum(leaf.size for leaf in jax.tree.leaves(found)) == expected


@pytest.mark.parametrize(
    ("spec", "smallest"),
    [("cnn", 4), ("l2_init_cnn", 16), ("continual_imagenet_cnn", 24), ("continual_imagenet_cnn(padding=SAME)", 8)],
)
def test_the_smallest_image(spec, smallest):
    network = build(spec, HEAD)
    shapes(network, (1, smallest, smallest, 1))
    with pytest.raises(UserError, match="the images are too small"):
        shapes(network, (1, smallest - 1, smallest - 1, 1))


def test_what_is_no_image_is_a_clear_error():
    with pytest.raises(UserError, match="needs images"):
        shapes(build("cnn", HEAD), (1, 784))


# The forward pass ---------------------------------------------------------------------------------------------------

PASSES = [
    ("cnn(6, channels=4)", 9, "SAME", {}),
    ("cnn(6, channels=4)", 7, "SAME", {"normalization": "layer"}),
    ("cnn(6, channels=4, pool=3)", 10, "SAME", {"dueling": True, "activation": "crelu"}),
    ("cnn(6, channels=4, pool=1)", 5, "SAME", {}),
    ("l2_init_cnn(6, channels=4)", 17, "VALID", {"normalization": "layer", "activation": "crelu"}),
    ("continual_imagenet_cnn(6, channels=2)", 25, "VALID", {"normalization": "layer", "dueling": True}),
]


def rewrite(params, x, padding, pool, options):
    """In float64 numpy."""
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)

    def activate(name, z):
        if "normalization" in options:
            axes = tuple(range(1, z.ndim))
            z = (z - z.mean(axes, keepdims=True)) / np.sqrt(z.var(axes, keepdims=True) + 1e-6)
            z = z * params[f"norm_{name}"]["scale"] + params[f"norm_{name}"]["bias"]
        if options.get("activation") == "crelu":
            return np.concatenate([np.maximum(z, 0), np.maximum(-z, 0)], -1)
        return np.maximum(z, 0)

    def dense(name, x):
        return x @ params[name]["kernel"] + params[name]["bias"]

    x = x.astype(np.float64)
    for i in range(sum(name.startswith("conv") for name in params)):
        layer = params[f"conv_{i}"]
        x = pooled(activate(f"conv_{i}", convolve(x, layer["kernel"], 1, padding) + layer["bias"]), pool)
    x = x.reshape(len(x), -1)
    x = activate("hidden_0", dense("hidden_0", x))
    if "dueling" not in options:
        return dense("output", activate("hidden_1", dense("hidden_1", x)))
    value, advantage = (
        dense(f"{s}_output", activate(f"{s}_hidden", dense(f"{s}_hidden", x))) for s in ("value", "advantage")
    )
    advantage = advantage.reshape(len(x), 4, HEAD.outputs)
    return (value[:, None] + advantage - advantage.mean(1, keepdims=True)).reshape(len(x), -1)


@pytest.mark.parametrize(("spec", "size", "padding", "options"), PASSES)
def test_forward_pass_against_a_rewrite(spec, size, padding, options):
    network = build(spec, HEAD, **options)
    x = normal(3, size, size + 1, 2)
    variables = randomised(network, x)
    found, activations, _ = jax.jit(network.apply)(variables, x)
    pool = int(spec.partition("pool=")[2].rstrip(")") or 2)
    expected = rewrite(variables["params"], x, padding, pool, options)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    # Activations are those before the pooling.
    margin = 0 if padding == "SAME" else 4
    assert activations["conv_0"].pre.shape[1:3] == (size - margin, size + 1 - margin)


@pytest.mark.parametrize("spec", ["l2_init_cnn", "continual_imagenet_cnn"])
def test_the_sources_network_in_torch(spec):
    """At full size on 32 x 32. Torch's maps are CHW and are flattened as HWC here."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    network = build(spec, Softmax(2), predictions=1)
    x = normal(2, 32, 32, 3)
    variables = randomised(network, x)
    params = jax.tree.map(lambda p: torch.tensor(np.asarray(p)), variables["params"])
    y = torch.tensor(x).permute(0, 3, 1, 2)
    for name in sorted(name for name in params if name.startswith("conv")):
        y = functional.conv2d(y, params[name]["kernel"].permute(3, 2, 0, 1), params[name]["bias"])
        y = functional.max_pool2d(functional.relu(y), 2)
    y = y.permute(0, 2, 3, 1).flatten(1)
    for name in ("hidden_0", "hidden_1"):
        y = functional.relu(functional.linear(y, params[name]["kernel"].T, params[name]["bias"]))
    y = functional.linear(y, params["output"]["kernel"].T, params["output"]["bias"])
    np.testing.assert_allclose(jax.jit(network.apply)(variables, x)[0], y.numpy(), rtol=1e-3, atol=1e-3)


def test_a_group_of_runs_equals_single_runs():
    """Three lanes of a few SGD steps in scan, under vmap with matrix products and one by one with XLA's convolution."""
    x, y = normal(4, 9, 9, 2), np.arange(4)

    def train(params, form):
        network = build(f"cnn(6, channels=4, conv={form})", HEAD, predictions=1)

        def step(params, _):
            grads = jax.grad(lambda p: jnp.mean(HEAD.loss(network.apply({"params": p}, x)[0], y)))(params)
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), None

        return jax.lax.scan(step, params, length=3)[0]

    network = build("cnn(6, channels=4)", HEAD, predictions=1)
    lanes = [randomised(network, x, seed)["params"] for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *lanes)
    group = jax.jit(jax.vmap(lambda params: train(params, "matmul")))(stacked)
    single = jax.jit(lambda params: train(params, "lax"))
    for i, params in enumerate(lanes):
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5), group, single(params))
