"""The multilayer perceptron and its unit graph, for every activation with and without layer norm."""

import itertools
import math
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.activations import NONLINEARITIES
from plasticity.heads import Softmax
from plasticity.network import Outgoing, get_at, norm_affine_mask, set_at
from plasticity.networks import Architecture, networks

WIDTH, DEPTH, OUTPUTS, BATCH = 6, 3, 4, 5
X = np.random.default_rng(0).normal(size=(BATCH, 3, 3, 1)).astype(np.float32)
#: Those with coefficients of their own are tested in test_nonlinearities.
FIXED = [name for name, phi in NONLINEARITIES.items() if not phi.learned]
GRID = list(itertools.product(FIXED, ("none", "layer")))
grid = pytest.mark.parametrize(("activation", "normalization"), GRID)


@lru_cache
def network(activation, normalization, depth=DEPTH):
    architecture = Architecture(Softmax(OUTPUTS), normalization, activation, slope=0.2)
    return networks.get("mlp")(WIDTH, depth).build(architecture)


@lru_cache
def variables(activation, normalization):
    """Random everywhere: at their initial values biases, offsets and scales would not be seen."""
    drawn = network(activation, normalization).init(jax.random.key(0), X)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), drawn)


def phi(name, z):
    erf = np.vectorize(math.erf)
    return {
        "relu": lambda: np.maximum(z, 0),
        "leaky_relu": lambda: np.where(z > 0, z, 0.2 * z),
        # Within 1e-3 of the tanh form that is used.
        "gelu": lambda: z * (1 + erf(z / 2**0.5)) / 2,
        "swish": lambda: z / (1 + np.exp(-z)),
        "elu": lambda: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
        "tanh": lambda: np.tanh(z),
        "fourier": lambda: np.concatenate([np.sin(z), np.cos(z)], -1),
        "aid": lambda: np.where(z > 0, 0.8 * z, 0.2 * z),
        "crelu": lambda: np.concatenate([np.maximum(z, 0), np.maximum(-z, 0)], -1),
    }[name]()


def rewrite(params, activation, normalization):
    """In float64 numpy: (output, {layer: (pre, post)})."""
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    h, seen = X.reshape(BATCH, -1).astype(np.float64), {}
    for i in range(DEPTH):
        z = h @ params[f"hidden_{i}"]["kernel"] + params[f"hidden_{i}"]["bias"]
        if normalization == "layer":
            centred = z - z.mean(-1, keepdims=True)
            z = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
            z = z * params[f"norm_hidden_{i}"]["scale"] + params[f"norm_hidden_{i}"]["bias"]
        h = phi(activation, z)
        seen[f"hidden_{i}"] = (z, h)
    return h @ params["output"]["kernel"] + params["output"]["bias"], seen


@grid
def test_forward_pass_against_a_rewrite(activation, normalization):
    drawn = variables(activation, normalization)
    output, activations, state = network(activation, normalization).apply(drawn, X)
    expected, layers = rewrite(drawn["params"], activation, normalization)
    tolerance = {"rtol": 0.02, "atol": 0.05} if activation == "gelu" else {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(output, expected, **tolerance)
    assert list(activations) == list(layers)
    for name, (pre, post) in layers.items():
        np.testing.assert_allclose(activations[name].pre, pre, **tolerance)
        np.testing.assert_allclose(activations[name].post, post, **tolerance)
    assert state == {}


@grid
def test_the_unit_graph_names_parameters_of_the_right_shape(activation, normalization):
    net = network(activation, normalization)
    params = variables(activation, normalization)["params"]
    width = NONLINEARITIES[activation].width
    fan_in = 9
    assert [layer.name for layer in net.units] == ["hidden_0", "hidden_1", "hidden_2"]
    for layer in net.units:
        assert layer.units == WIDTH
        assert get_at(params, layer.kernel).shape == (fan_in, WIDTH)
        assert layer.bias is not None
        assert get_at(params, layer.bias).shape == (WIDTH,)
        assert (layer.norm_scale is None) == (layer.norm_bias is None) == (normalization == "none")
        if normalization == "layer":
            assert get_at(params, layer.norm_scale).shape == get_at(params, layer.norm_bias).shape == (WIDTH,)
        for outgoing in layer.outgoing:
            assert get_at(params, outgoing.kernel).shape[-2] == WIDTH * width
            assert outgoing.rows(jnp.arange(WIDTH), params).shape == (WIDTH * width,)
        fan_in = WIDTH * width
    assert get_at(params, net.output_kernel).shape == (fan_in, OUTPUTS)
    assert net.units[-1].outgoing[0].kernel == net.output_kernel
    assert net.activation == activation


@grid
@pytest.mark.parametrize("layer", range(DEPTH))
def test_zeroing_the_outgoing_rows_of_a_unit_removes_it(activation, normalization, layer):
    """Whatever the unit does then (its bias is moved far), no later layer notices; with its rows, it does."""
    net, drawn = network(activation, normalization), variables(activation, normalization)
    unit = net.units[layer]
    # After a layer norm a unit's own offset moves it alone; its bias would move its neighbours too.
    path = unit.norm_bias if normalization == "layer" else unit.bias
    mask = jnp.arange(WIDTH) == 2

    def cut(params):
        for outgoing in unit.outgoing:
            kernel = get_at(params, outgoing.kernel)
            params = set_at(params, outgoing.kernel, jnp.where(outgoing.rows(mask, params)[:, None], 0.0, kernel))
        return params

    def output(params, shift):
        moved = set_at(params, path, get_at(params, path) + shift * mask)
        return np.asarray(net.apply({"params": moved}, X)[0])

    params = drawn["params"]
    for shift in (-50.0, 50.0):  # either half of a CReLU
        np.testing.assert_array_equal(output(cut(params), shift), output(cut(params), 0.0))
        if activation != "relu" or shift > 0:
            assert np.any(output(params, shift) != output(params, 0.0))


def test_rows_of_a_unit_are_laid_out_unit_fastest():
    """Catalogue, oracle O4: three channels on a 2 x 2 map, flattened as HWC: channel 0 owns rows 0, 3, 6, 9."""
    rows = Outgoing(("k",)).rows(jnp.array([True, False, False]), {"k": jnp.zeros((12, 5))})
    assert np.flatnonzero(rows).tolist() == [0, 3, 6, 9]


def test_kernels_have_variance_one_over_fan_in_and_biases_are_zero():
    net = networks.get("mlp")(400, 1).build(Architecture(Softmax(OUTPUTS)))
    params = net.init(jax.random.key(0), jnp.zeros((1, 100)))["params"]
    np.testing.assert_allclose(np.var(params["hidden_0"]["kernel"]), 1 / 100, rtol=0.05)
    assert not np.any(params["hidden_0"]["bias"])


def test_norm_affine_mask_is_true_on_norm_parameters_only():
    params = variables("relu", "layer")["params"]
    mask = norm_affine_mask(params, network("relu", "layer"))
    assert {path[0].key for path, m in jax.tree_util.tree_leaves_with_path(mask) if m} == {
        "norm_hidden_0",
        "norm_hidden_1",
        "norm_hidden_2",
    }
    assert not any(jax.tree.leaves(norm_affine_mask(params, network("relu", "none"))))


def test_paths():
    tree = {"a": {"b": 1, "c": 2}, "d": 3}
    assert get_at(tree, ("a", "c")) == 2
    changed = set_at(tree, ("a", "c"), 5)
    assert changed == {"a": {"b": 1, "c": 5}, "d": 3}
    assert tree["a"]["c"] == 2
    with pytest.raises(KeyError, match="no entry a/x"):
        get_at(tree, ("a", "x", "y"))
