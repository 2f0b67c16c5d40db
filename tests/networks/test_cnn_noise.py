"""Fresh draws of the networks of deep RL, and noisy layers against the explicit formula."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import build, randomised, shapes

from plasticity.rng import named

RNG = np.random.default_rng(0)

# Fresh draws ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", ["lecun", "xavier", "uniform"])
def test_fresh_kernels_and_biases(init):
    """Bounds and variances; a convolution's fan counts the pixels of its kernel."""
    params = build(f"nature(64, init={init})").init(jax.random.key(0), jnp.zeros((1, 12, 12, 4)))["params"]
    for name, layer in params.items():
        kernel, bias = np.asarray(layer["kernel"]), np.asarray(layer["bias"])
        fan_in = math.prod(kernel.shape[:-1])
        fan_out = math.prod(kernel.shape[:-2]) * kernel.shape[-1]
        variance = {"lecun": 1 / fan_in, "xavier": 2 / (fan_in + fan_out), "uniform": 1 / (3 * fan_in)}[init]
        spread = 6 * (2 / kernel.size) ** 0.5  # six deviations of a sample variance, of normal numbers
        assert kernel.var() == pytest.approx(variance, rel=spread), name
        assert abs(kernel.mean()) < 6 * (variance / kernel.size) ** 0.5
        if init != "lecun":
            bound = (3 * variance) ** 0.5
            assert 0.9 * bound < np.abs(kernel).max() <= bound * (1 + 1e-6) or kernel.size < 500
        if init == "uniform":
            assert np.abs(bias).max() <= fan_in**-0.5
            assert np.unique(bias).size == bias.size
            assert bias.size < 30 or bias.var() == pytest.approx(1 / (3 * fan_in), rel=6 * (0.8 / bias.size) ** 0.5)
        else:
            assert not np.any(bias)


def test_fresh_noisy_layers():
    """Means uniform on +- 1/sqrt(in) whatever the network's own choice, deviations noise / sqrt(in)."""
    for spec in ("minatar(64)", "mlp(64, 1)"):
        network = build(spec, noise=0.5)
        params = network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 2)))["params"]
        for name in ("hidden" if "mlp" not in spec else "hidden_0", "output"):
            fan_in = params[name]["kernel"].shape[0]
            for leaf in ("noise_kernel", "noise_bias"):
                np.testing.assert_allclose(params[name][leaf], 0.5 / fan_in**0.5, rtol=1e-6)
            kernel = np.asarray(params[name]["kernel"])
            assert np.abs(kernel).max() <= fan_in**-0.5 * (1 + 1e-6)
            assert kernel.var() == pytest.approx(1 / (3 * fan_in), rel=6 * (2 / kernel.size) ** 0.5)
            assert np.any(params[name]["bias"])
        assert all("noise_kernel" not in layer for name, layer in params.items() if name.startswith("conv"))


# Noise ------------------------------------------------------------------------------------------------------------

NOISY = [("nature(16)", {"dueling": True}), ("minatar(16)", {}), ("mlp(16, 2)", {"dueling": True})]
noisy = pytest.mark.parametrize(("spec", "options"), NOISY)


def with_noise(params, key):
    """Plain parameters equal to a draw: W + S * (f(e) f(e')^T), b + s * f(e')."""

    def f(key, n):
        e = np.asarray(jax.random.normal(key, (n,)), np.float64)
        return np.sign(e) * np.sqrt(np.abs(e))

    plain = {}
    for name, layer in params.items():
        if "noise_kernel" not in layer:
            plain[name] = layer
            continue
        rows, columns = layer["kernel"].shape
        e_in, e_out = (f(named(named(key, name), end), n) for end, n in (("in", rows), ("out", columns)))
        plain[name] = {
            "kernel": jnp.asarray(layer["kernel"] + layer["noise_kernel"] * np.outer(e_in, e_out), jnp.float32),
            "bias": jnp.asarray(layer["bias"] + layer["noise_bias"] * e_out, jnp.float32),
        }
    return plain


@noisy
def test_noise_against_the_explicit_formula(spec, options):
    x = RNG.normal(size=(3, 8, 8, 2)).astype(np.float32)
    network, plain = build(spec, noise=0.5, **options), build(spec, **options)
    variables = randomised(network, x)
    key = jax.random.key(7)
    apply = jax.jit(network.apply)
    found = apply(variables, x, key)[0]
    expected = jax.jit(plain.apply)({"params": with_noise(variables["params"], key)}, x)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(found, apply(variables, x, key)[0])
    assert np.all(np.abs(found - apply(variables, x, jax.random.key(8))[0]) > 1e-5)


@noisy
def test_without_a_key_the_mean_weights_are_applied(spec, options):
    x = RNG.normal(size=(3, 8, 8, 2)).astype(np.float32)
    network, plain = build(spec, noise=0.5, **options), build(spec, **options)
    variables = randomised(network, x)
    means = {
        name: {leaf: value for leaf, value in layer.items() if not leaf.startswith("noise")}
        for name, layer in variables["params"].items()
    }
    assert jax.tree.structure(means) == jax.tree.structure(shapes(plain, x.shape))
    np.testing.assert_array_equal(
        jax.jit(network.apply)(variables, x)[0], jax.jit(plain.apply)({"params": means}, x)[0]
    )
