"""Norms, distances, ratios and effective learning rates by hand, by NumPy, and on degenerate trees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.diagnostics import diagnose, norms
from plasticity.diagnostics.learning_rate import effective_lr
from plasticity.errors import UserError

PARAMS = {
    "hidden_0": {"kernel": np.array([[3.0, 0], [0, 4]]), "bias": np.array([0.0, 12])},  # kernel 5, all 13
    "norm_0": {"scale": np.array([0.0, 84])},
    "output": {"kernel": np.array([[0.0], [0.0]]), "bias": np.array([0.0])},
}
INITIAL = jax.tree.map(lambda p: p - 1.0, PARAMS)
HALF = jax.tree.map(lambda p: p / 2, PARAMS)


def values(**arguments):
    return {key: float(value) for key, value in diagnose(**arguments).items()}


@pytest.mark.parametrize(
    ("name", "argument"), [("weight_norm", "params"), ("gradient_norm", "grads"), ("update_norm", "updates")]
)
def test_norms_by_hand(name, argument):
    got = values(**{argument: PARAMS}, choose=[name])
    assert got == pytest.approx({name: 85, f"{name}/hidden_0": 13, f"{name}/norm_0": 84, f"{name}/output": 0})


def test_weight_magnitude_is_the_mean_over_entries():
    got = values(params=PARAMS, choose=["weight_magnitude"])
    assert got["weight_magnitude/hidden_0"] == pytest.approx(19 / 6)
    assert got["weight_magnitude"] == pytest.approx(103 / 11)


def test_distances_by_hand():
    got = values(params=PARAMS, initial_params=INITIAL, choose=["distance_from_init", "relative_distance_from_init"])
    assert got["distance_from_init/hidden_0"] == pytest.approx(6**0.5)
    assert got["distance_from_init"] == pytest.approx(11**0.5)
    initial = np.concatenate([np.ravel(x) for x in jax.tree.leaves(INITIAL)])
    assert got["relative_distance_from_init"] == pytest.approx(11**0.5 / np.linalg.norm(initial))
    # A layer that starts at zero: any move is infinitely far, no move is none.
    zero = jax.tree.map(np.zeros_like, PARAMS)
    got = values(params=PARAMS, initial_params=zero, choose=["relative_distance_from_init"])
    assert got["relative_distance_from_init/hidden_0"] == np.inf
    assert got["relative_distance_from_init/output"] == 0


def test_update_ratio_by_hand():
    got = values(params=PARAMS, updates=HALF, choose=["update_ratio"])
    assert got["update_ratio"] == got["update_ratio/hidden_0"] == pytest.approx(0.5)
    assert got["update_ratio/output"] == 0  # 0 / 0


def test_effective_learning_rates_by_hand():
    got = values(params=PARAMS, learning_rate=0.5, choose=["effective_lr_sgd", "effective_lr_adam"])
    assert got == pytest.approx(
        {
            "effective_lr_adam": 0.1,
            "effective_lr_adam/hidden_0": 0.1,
            "effective_lr_adam/output": np.inf,
            "effective_lr_sgd": 0.02,
            "effective_lr_sgd/hidden_0": 0.02,
            "effective_lr_sgd/output": np.inf,
        }
    )  # biases do not count, and norm_0 has no kernel
    assert values(params=PARAMS, learning_rate=0.0)["effective_lr_sgd/output"] == 0


def test_effective_learning_rate_is_what_scaling_the_kernel_does():
    kernel = np.random.default_rng(0).normal(size=(5, 7))
    for power in (1, 2):
        a, b = effective_lr(0.1, kernel, power), effective_lr(0.1, 10 * kernel, power)
        assert float(a / b) == pytest.approx(10**power, rel=1e-5)
    assert float(effective_lr(1.0, np.float32(1e25) * np.ones((2, 2), np.float32), 2)) == 0  # no NaN on the way


def test_against_numpy_on_random_trees():
    rng = np.random.default_rng(0)
    tree = {name: {"kernel": rng.normal(size=(7, 3)), "bias": rng.normal(size=3)} for name in "abc"}
    flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
    got = values(params=tree, choose=["weight_norm", "weight_magnitude"])
    assert got["weight_norm"] == pytest.approx(np.linalg.norm(flat), rel=1e-6)
    assert got["weight_norm"] ** 2 == pytest.approx(sum(got[f"weight_norm/{name}"] ** 2 for name in "abc"), rel=1e-6)
    assert got["weight_magnitude"] == pytest.approx(np.abs(flat).mean(), rel=1e-6)
    assert got["weight_magnitude"] == pytest.approx(
        np.mean([got[f"weight_magnitude/{name}"] for name in "abc"]), rel=1e-6
    )


@pytest.mark.parametrize("scale", [1e-36, 1e-30, 1e30, 6e37])
def test_squares_neither_vanish_nor_overflow(scale):
    assert float(norms.norm([np.float32(scale) * np.array([3, 4], np.float32)])) == pytest.approx(5 * scale, rel=1e-5)


def test_norms_of_degenerate_trees():
    assert float(norms.norm({})) == 0
    assert float(norms.norm({"empty": np.zeros((0, 3))})) == 0
    assert float(norms.norm({"zero": np.zeros(3)})) == 0
    assert np.isnan(norms.mean_magnitude({}))
    assert np.isnan(norms.norm([np.array([1.0, np.nan])]))
    assert float(norms.norm([np.array([1.0, -np.inf])])) == np.inf


def test_nan_in_one_layer_stays_there():
    grads = {"a": np.array([np.nan]), "b": np.array([3.0])}
    got = values(grads=grads, choose=["gradient_norm"])
    assert np.isnan(got["gradient_norm"])
    assert np.isnan(got["gradient_norm/a"])
    assert got["gradient_norm/b"] == 3


def test_layers_of_other_containers():
    assert set(norms.by_layer([np.ones(1), np.ones(2)])) == {"0", "1"}
    assert set(norms.by_layer({"a": {"b": {"c": np.ones(1)}}, "empty": {}})) == {"a"}
    assert norms.by_layer(np.ones(3)) == {}
    assert values(params=np.array([3.0, 4.0]), choose=["weight_norm"]) == {"weight_norm": 5}

    pair = jax.tree_util.Partial(lambda: None, np.ones(1))
    assert len(norms.by_layer(pair)) == 1


@pytest.mark.parametrize("other", [{"hidden_0": PARAMS["hidden_0"]}, jax.tree.map(lambda p: p[None], PARAMS)])
def test_trees_that_do_not_match_are_an_error(other):
    with pytest.raises(UserError, match="structure or shapes"):
        diagnose(params=PARAMS, initial_params=other, choose=["distance_from_init"])
    with pytest.raises(UserError, match="structure or shapes"):
        diagnose(params=PARAMS, updates=other, choose=["update_ratio"])


def test_half_precision_is_summed_in_float32():
    got = norms.norm({"w": jnp.full(4096, 1.0, jnp.bfloat16)})
    assert got.dtype == jnp.float32
    assert float(got) == 64
