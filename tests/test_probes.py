"""The trainability probe: what cannot learn stays at 1, what is fresh is like a fresh one, and nothing changes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity.heads import Softmax
from plasticity.network import set_at
from plasticity.networks import Architecture, networks
from plasticity.probes import trainability

X = jnp.asarray(np.random.default_rng(0).normal(size=(48, 12)), jnp.float32)
NETWORK = networks.get("mlp")(64, 2).build(Architecture(Softmax(3)))
UPDATES = 150


def initializer(key):
    return NETWORK.init(key, X)


def probe(key, variables, updates=UPDATES, rate=3e-3):
    tx = optax.with_extra_args_support(optax.adam(rate))
    return trainability(key, NETWORK, variables, initializer, X, tx, updates)


compiled = jax.jit(probe, static_argnums=2)
KEYS = jax.random.split(jax.random.key(1), 8)
FRESH = jax.jit(initializer)(jax.random.key(0))


def dead():
    """All units of both layers are below zero on every input."""
    variables = FRESH
    for layer in NETWORK.units:
        variables = {"params": set_at(variables["params"], layer.bias, jnp.full(64, -1e3))}
    return variables


def test_a_network_that_cannot_learn_stays_at_the_loss_of_the_mean():
    found = compiled(KEYS[0], dead())
    assert 0.99 < found.loss < 1.1
    assert found.fresh_loss < 0.5


def unmoved(variables):
    """The loss without learning: one update of length 0."""
    return float(compiled(KEYS[0], variables, 1, 0.0).loss)


def test_the_mean_of_the_outputs_does_not_count_and_their_spread_does():
    """Outputs in excess of the mean are an error of that size, beside the wave's own: 1 + their variance / its."""
    params = FRESH["params"]
    assert 1.0 <= unmoved(dead()) < 1.2  # a constant: 1, and the wave's mean on these inputs
    shifted = set_at(params, ("output", "bias"), params["output"]["bias"] + 20.0)
    assert unmoved({"params": shifted}) == pytest.approx(unmoved(FRESH), rel=1e-3)
    wide = set_at(params, ("output", "kernel"), params["output"]["kernel"] * 100.0)
    variance = float(jnp.var(NETWORK.apply({"params": wide}, X)[0][:, 0]))
    assert unmoved({"params": wide}) == pytest.approx(variance / 0.5, rel=0.2)  # of a sine: 1/2


def test_a_fresh_network_is_like_a_fresh_network():
    """Over eight probes: the means are within three standard errors of the difference."""
    found = jax.jit(jax.vmap(lambda key: probe(key, initializer(jax.random.fold_in(key, 9)))))(KEYS)
    difference = np.asarray(found.loss - found.fresh_loss)
    assert found.loss.max() < 0.6
    assert abs(difference.mean()) < 3 * difference.std(ddof=1) / len(KEYS) ** 0.5 + 1e-3


def test_the_same_key_gives_the_same_and_another_key_another_result():
    first, again, other = compiled(KEYS[0], FRESH), compiled(KEYS[0], FRESH), compiled(KEYS[1], FRESH)
    assert (first.loss, first.fresh_loss) == (again.loss, again.fresh_loss)
    assert first.loss != other.loss
    assert first.fresh_loss != other.fresh_loss


def test_the_fresh_loss_does_not_depend_on_the_copy():
    assert compiled(KEYS[0], dead()).fresh_loss == compiled(KEYS[0], FRESH).fresh_loss


def test_nothing_that_is_passed_in_changes():
    before = jax.tree.map(np.array, FRESH)
    key = np.array(jax.random.key_data(KEYS[0]))
    probe(KEYS[0], FRESH, 2)  # outside jit, where arrays could be written to
    compiled(KEYS[0], FRESH)
    jax.tree.map(np.testing.assert_array_equal, FRESH, before)
    np.testing.assert_array_equal(jax.random.key_data(KEYS[0]), key)


def test_mapped_over_runs_equals_one_by_one():
    """A dead run among fresh ones, each with a key of its own."""
    runs = [FRESH, dead(), jax.jit(initializer)(jax.random.key(5))]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *runs)
    together = jax.jit(jax.vmap(partial(probe, updates=20)))(KEYS[:3], stacked)
    for i, variables in enumerate(runs):
        alone = compiled(KEYS[i], variables, 20)
        np.testing.assert_allclose(together.loss[i], alone.loss, rtol=0.02)
        np.testing.assert_allclose(together.fresh_loss[i], alone.fresh_loss, rtol=0.02)


def test_images_of_bytes_and_the_networks_of_deep_rl():
    network = networks.get("minatar")(16, features=4).build(Architecture(Softmax(3), predictions=2))
    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, (12, 6, 6, 2)), jnp.uint8)

    @jax.jit
    def run(key):
        variables = network.init(key, x)
        tx = optax.with_extra_args_support(optax.adam(3e-3))
        return trainability(key, network, variables, lambda key: network.init(key, x), x, tx, 3, batch_size=4)

    found = run(KEYS[0])
    assert np.isfinite(found.loss)
    assert np.isfinite(found.fresh_loss)
