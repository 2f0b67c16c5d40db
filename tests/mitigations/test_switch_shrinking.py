"""What shrinks or straightens weights at a switch: DASH, FIRE, shrink to init, shrink and Gaussian noise."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lab import method, setting

from plasticity.errors import UserError
from plasticity.heads import Regression
from plasticity.mitigations import Event, Learner, Setting, compose, mitigations
from plasticity.mitigations.dash import shrink_factor
from plasticity.mitigations.fire import newton_schulz, polar
from plasticity.networks import Architecture, networks
from plasticity.optimizers import optimizers
from plasticity.rng import named
from plasticity.spec import build

TX = optimizers.get("adam")().build()


def no_data(*args):
    raise AssertionError("asked for data")


NO_DATA = Event(jnp.int32(1), no_data, no_data)


@lru_cache
def started(name):
    """(setting, learner) with layer norms: every parameter away from its start, a state with moments."""
    architecture = Architecture(Regression(-1.0, 1.0), normalization="layer")
    spec, shape = {"mlp": ("mlp(6, 2)", (4,)), "conv": ("minatar(6, features=4)", (5, 5, 2))}[name]
    network = build(spec, networks)[0].build(architecture)
    x = jnp.ones((2, *shape))
    variables = network.init(jax.random.key(0), x)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: p + jnp.asarray(rng.normal(size=p.shape), jnp.float32), variables["params"])
    state = TX.update(params, TX.init(params), params)[1]
    return Setting(network, lambda key: network.init(key, x), 0.1, jax.random.key(1), TX), Learner(
        {"params": params}, state
    )


def switched(spec, learner, surroundings, event=NO_DATA):
    return compose.on_switch(build(spec, mitigations), jax.random.key(2), learner, surroundings, event)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def of(learner, *names):
    tree = learner.variables["params"]
    for name in names:
        tree = tree[name]
    return np.asarray(tree)


# DASH -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("w", "d", "expected"),
    [
        ([1, 0], [-1, 1], 0.3),  # cosine -.707
        ([1, 0], [0.8, 0.6], 0.8),
        ([1, 0], [5, 0], 1.0),
        ([1, 0], [0, 0], 1.0),
        ([0, 0], [1, 0], 1.0),
        ([2e-20, 0], [8e-30, 6e-30], 0.8),  # squares of which are nothing in float32
        ([1e25, 0], [8e30, 6e30], 0.8),
    ],
)
def test_the_factor_of_dash_by_hand(w, d, expected):
    """Catalogue, oracle O12."""
    w, d = jnp.array(w, jnp.float32), jnp.array(d, jnp.float32)
    assert shrink_factor(w, d, 0.3, (0,)).tolist() == pytest.approx([expected])


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_dash_is_torchs_cosine_by_unit_by_kernel_and_by_bias(name):
    torch = pytest.importorskip("torch")
    surroundings, learner = started(name)

    def gradient(variables, key):
        leaves, structure = jax.tree.flatten(variables["params"])
        keys = jax.random.split(key, len(leaves))
        return jax.tree.unflatten(structure, [jax.random.normal(k, p.shape) for k, p in zip(keys, leaves, strict=True)])

    event = Event(jnp.int32(1), no_data, gradient)
    after = switched("dash(0.2, alpha=0.4, batches=3)", learner, surroundings, event)
    keys = jax.random.split(named(jax.random.key(2), "dash"), 3)
    grads = [gradient(learner.variables, key) for key in keys]
    weights = [0.4 * 0.6**2, 0.4 * 0.6, 0.4]

    def tensor(x):
        return torch.tensor(np.array(x), dtype=torch.float64)

    for module, leaves in learner.variables["params"].items():
        for leaf, w in leaves.items():
            if module.startswith("norm"):
                np.testing.assert_array_equal(of(after, module, leaf), w)
                continue
            w, d = tensor(w), -sum(c * tensor(g[module][leaf]) for c, g in zip(weights, grads, strict=True))
            if leaf == "bias":
                cosine = torch.nn.functional.cosine_similarity(w, d, dim=0)
            else:  # of a convolution the k x k kernel of each pair of channels
                flat = (lambda t: t.flatten(0, 1)) if w.ndim == 4 else (lambda t: t)
                cosine = torch.nn.functional.cosine_similarity(flat(w), flat(d), dim=0)
            np.testing.assert_allclose(of(after, module, leaf), w * cosine.clamp(0.2, 1), rtol=1e-4, atol=1e-6)
    same(after.opt_state, TX.init(learner.variables["params"]))


def test_dash_that_shrinks_nothing_and_keeps_the_state_is_absent():
    surroundings, learner = started("mlp")
    (member,) = build("dash(reset_optimizer=false)", mitigations)
    event = Event(jnp.int32(1), no_data, lambda variables, key: variables["params"])
    after = compose.on_switch([member.neutral()], jax.random.key(0), learner, surroundings, event)
    same(after, learner)
    assert build("dash", mitigations)[0].neutral() is None


# FIRE -------------------------------------------------------------------------------------------------------------


def singular(values, rows=6, columns=4, seed=0):
    """A matrix with these singular values."""
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.normal(size=(n, len(values))))[0] for n in (rows, columns))
    return jnp.asarray(u @ np.diag(values) @ v.T, jnp.float32)


@pytest.mark.parametrize(
    ("small", "iterations", "expected"), [(0.01, 10, 0.53), (0.001, 10, 0.058), (0.001, 20, 0.998)]
)
@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_small_singular_values_do_not_arrive(small, iterations, expected, shape):
    """Catalogue, 2a: after 10 iterations .01 of the norm has become .53, .001 .058."""
    large = (1 - small**2) ** 0.5
    found = np.linalg.svd(newton_schulz(100 * singular([large, small], *shape), iterations), compute_uv=False)
    s = small
    for _ in range(iterations):
        s = 1.5 * s - 0.5 * s**3
    np.testing.assert_allclose(found[:2], [1.0, s], rtol=1e-4)
    assert s == pytest.approx(expected, abs=0.005 if expected > 0.1 else 0.0005)


def test_the_polar_factor_is_scipys_and_the_iteration_goes_there():
    linalg = pytest.importorskip("scipy.linalg")
    for shape in ((6, 4), (4, 6), (5, 5)):
        w = singular([3.0, 2.0, 1.5, 0.7], *shape) if min(shape) == 4 else singular([3, 2, 1.5, 0.7, 0.6], 5, 5)
        expected, _ = linalg.polar(np.asarray(w, float))
        np.testing.assert_allclose(polar(w), expected, atol=1e-5)
        np.testing.assert_allclose(newton_schulz(w, 30), expected, atol=1e-5)


def test_zero_matrices_stay_zero_and_sizes_do_not_matter():
    for factor in (polar, lambda w: newton_schulz(w, 10)):
        assert not np.any(factor(jnp.zeros((2, 3, 4))))
        w = singular([1.0, 0.5, 0.2, 0.1])
        for size in (1e-30, 1e30):
            np.testing.assert_allclose(factor(size * w), factor(w), atol=1e-5)


@pytest.mark.parametrize("spec", ["fire(40)", "fire(method=svd)"])
@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_fire_makes_each_tap_of_each_kernel_an_isometry_of_its_scale(name, spec):
    surroundings, learner = started(name)
    after = switched(spec, learner, surroundings)
    for module, leaves in learner.variables["params"].items():
        for leaf, before in leaves.items():
            w = of(after, module, leaf)
            if leaf != "kernel":
                np.testing.assert_array_equal(w, before)
                continue
            *taps, fan_in, fan_out = w.shape
            expected = (fan_out / fan_in) ** 0.5 / (np.prod(taps) if taps else 1)
            values = np.linalg.svd(w, compute_uv=False)
            np.testing.assert_allclose(values, expected, rtol=1e-3)
            # The nearest such matrix: W^T P is symmetric and positive.
            product = np.swapaxes(np.asarray(before), -1, -2) @ w
            np.testing.assert_allclose(product, np.swapaxes(product, -1, -2), atol=1e-3)
    same(after.opt_state, TX.init(learner.variables["params"]))
    same(switched("fire(reset_optimizer=false)", learner, surroundings).opt_state, learner.opt_state)


# Shrinking --------------------------------------------------------------------------------------------------------


def test_shrink_to_init_goes_that_far_towards_where_the_run_began():
    """1 - .75 of what was learned is kept, norms included, and the memory stays."""
    chosen = method("shrink_to_init(0.75)+layer_norm")
    parts, _, variables = setting(chosen)
    moved = {**variables, "params": jax.tree.map(lambda p: p + 8.0, variables["params"])}
    learner = Learner(moved, parts.restarted(moved))
    for _ in range(2):
        learner = compose.on_switch(chosen.mitigations, jax.random.key(0), learner, parts, NO_DATA)
    for now, start in zip(*map(jax.tree.leaves, (learner.variables["params"], variables["params"])), strict=True):
        np.testing.assert_allclose(now, start + 0.5, atol=1e-5)
    same(learner.variables["memory"]["shrink_to_init"], variables["params"])


def test_shrink_to_init_without_its_memory_says_so():
    surroundings, learner = started("mlp")
    with pytest.raises(UserError, match="shrink_to_init needs the initial parameters in variables"):
        switched("shrink_to_init", learner, surroundings)


def test_gaussian_noise_has_one_deviation_for_all_kernels_and_nothing_else_moves():
    surroundings, learner = started("conv")
    after = switched("shrink_gaussian(shrink=0.3, deviation=0.5)", learner, surroundings)
    noise = []
    for module, leaves in learner.variables["params"].items():
        for leaf, before in leaves.items():
            if leaf == "kernel":
                noise.append(np.ravel(of(after, module, leaf) - 0.3 * before))
            else:
                np.testing.assert_array_equal(of(after, module, leaf), before)
    assert all(len(n) < 20 or abs(n.std() - 0.5) < 0.2 for n in noise)
    noise = np.concatenate(noise)
    assert abs(noise.std() - 0.5) < 0.06
    assert abs(noise.mean()) < 0.1
    assert len(np.unique(noise)) == len(noise)


@pytest.mark.parametrize("spec", ["shrink_gaussian", "shrink_to_init"])
def test_the_optimiser_restarts_only_if_asked(spec):
    surroundings, learner = started("mlp")
    variables = {**learner.variables, "memory": {"shrink_to_init": learner.variables["params"]}}
    learner = learner._replace(variables=variables)
    same(switched(spec, learner, surroundings).opt_state, learner.opt_state)
    renewed = switched(f"{spec}(reset_optimizer=true)", learner, surroundings).opt_state
    same(renewed, TX.init(learner.variables["params"]))
