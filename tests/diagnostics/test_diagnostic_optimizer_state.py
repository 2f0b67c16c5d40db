"""Moments in the states of optax's optimisers, and the ratio that is Adam's step: by hand, by optax's own steps."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings

from plasticity.diagnostics import diagnose, optimizer_state
from plasticity.errors import UserError
from plasticity.optimizers.adam import scale_by_adam_per_entry

NAMES = ("first_moment_norm", "second_moment_norm", "moment_ratio_mean", "moment_ratio_max")
PARAMS = {
    "a": {"kernel": np.ones((2, 3), np.float32), "bias": np.ones(3, np.float32)},
    "b": {"kernel": np.ones((3, 1))},
}
ADAM = optax.scale_by_adam(eps=0.0)


def gradient(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), PARAMS)


def after(tx, steps, params=PARAMS):
    """The state of an optimiser after some steps, compiled once for all of them."""
    state, update = tx.init(jax.tree.map(jnp.asarray, params)), jax.jit(lambda g, s: tx.update(g, s, params))
    for step in range(steps):
        _, state = update(gradient(step), state)
    return state


def entries(tree):
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])


def moments(steps, b1=0.9, b2=0.999):
    """Adam's moments after some steps of `gradient`, in float64."""
    m = v = 0.0
    for step in range(steps):
        g = entries(gradient(step))
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    return m, v


def ratio(m, v, steps, b1=0.9, b2=0.999):
    return np.abs(m / (1 - b1**steps)) / np.sqrt(v / (1 - b2**steps))


# --- the numbers ----------------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(st.integers(1, 6), st.floats(0.0, 0.95), st.floats(0.5, 0.9999))
def test_adam_against_an_independent_rewrite(steps, b1, b2):
    m, v = moments(steps, b1, b2)
    tree = jax.tree.structure(PARAMS)
    ends = np.cumsum([leaf.size for leaf in jax.tree.leaves(PARAMS)])[:-1]

    def split(vector):
        leaves = zip(np.split(vector, ends), jax.tree.leaves(PARAMS), strict=True)
        return tree.unflatten([part.reshape(leaf.shape).astype(np.float32) for part, leaf in leaves])

    state = optax.ScaleByAdamState(np.int32(steps), split(m), split(v))
    found = compiled(state, b1, b2)
    expected = np.linalg.norm(m), np.linalg.norm(v), ratio(m, v, steps, b1, b2).mean(), ratio(m, v, steps, b1, b2).max()
    for name, value in zip(NAMES, expected, strict=True):
        assert float(found[name]) == pytest.approx(value, rel=1e-3), name
    in_b = ratio(m, v, steps, b1, b2)[-3:]
    assert float(found["moment_ratio_mean/b"]) == pytest.approx(in_b.mean(), rel=1e-3)
    assert float(found["moment_ratio_max/b"]) == pytest.approx(in_b.max(), rel=1e-3)
    assert float(found["first_moment_norm/b"]) == pytest.approx(np.linalg.norm(m[-3:]), rel=1e-4)


@jax.jit
def compiled(state, b1, b2):
    return diagnose(opt_state=state, choose=NAMES, adam_b1=b1, adam_b2=b2)


def test_the_ratio_is_the_step_that_optax_takes():
    state = after(ADAM, 5)
    step, state = ADAM.update(gradient(5), state)
    (part,) = optimizer_state.moments_of(state)
    np.testing.assert_allclose(entries(optimizer_state.moment_ratios(part)), np.abs(entries(step)), rtol=1e-4)


def test_a_constant_gradient_asks_for_one_learning_rate_whatever_its_size():
    params = {"h": np.ones(3, np.float32)}
    state = ADAM.init(jax.tree.map(jnp.asarray, params))
    for _ in range(3):
        _, state = ADAM.update({"h": np.array([1e-12, -3, 1e9], np.float32)}, state)
    found = diagnose(opt_state=state, choose=NAMES)
    assert float(found["moment_ratio_mean"]) == pytest.approx(1, rel=1e-4)
    assert float(found["moment_ratio_max"]) == pytest.approx(1, rel=1e-4)


def test_moments_that_are_reset_under_a_shared_count_ask_for_several():
    # A count that is past all corrections, moments of zero, and a constant gradient of 1.
    seen = []
    for steps in range(1, 21):
        state = optax.ScaleByAdamState(
            np.int32(10**6), {"h": np.float32(1 - 0.9**steps)}, {"h": np.float32(1 - 0.999**steps)}
        )
        seen.append(float(diagnose(opt_state=state, choose=["moment_ratio_max"])["moment_ratio_max"]))
    assert seen[0] == pytest.approx(3.162, abs=1e-3)
    assert max(seen) == pytest.approx(6.57, abs=0.01)
    assert int(np.argmax(seen)) == 12 - 1


def test_the_largest_shows_what_the_mean_hides():
    m, v = np.full(1000, 0.1, np.float32), np.ones(1000, np.float32)
    m[7] = 5
    state = optax.ScaleByAdamState(np.int32(10**6), {"h": m}, {"h": v})
    found = diagnose(opt_state=state, choose=NAMES)
    assert float(found["moment_ratio_mean"]) == pytest.approx(0.1049, rel=1e-4)
    assert float(found["moment_ratio_max"]) == pytest.approx(5, rel=1e-4)


def test_degenerate_moments():
    fresh = diagnose(opt_state=ADAM.init({"h": jnp.ones(3)}), choose=NAMES)
    assert [float(fresh[name]) for name in NAMES] == [0, 0, 0, 0]
    small = optax.ScaleByAdamState(np.int32(3), {"h": np.float32(1e-25)}, {"h": np.float32(0)})
    assert (
        float(diagnose(opt_state=small, choose=["moment_ratio_max"])["moment_ratio_max"]) == 0
    )  # eps rules such steps
    bad = optax.ScaleByAdamState(np.int32(3), {"h": np.float32(np.nan)}, {"h": np.float32(1)})
    assert all(np.isnan(value) for name, value in diagnose(opt_state=bad, choose=NAMES).items() if "second" not in name)
    empty = optax.ScaleByAdamState(np.int32(3), {"h": np.zeros((0, 3))}, {"h": np.zeros((0, 3))})
    found = diagnose(opt_state=empty, choose=NAMES)
    assert [float(found[name]) for name in NAMES[:2]] == [0, 0]
    assert np.isnan(found["moment_ratio_mean"])
    assert np.isnan(found["moment_ratio_max"])


# --- where optax keeps them -----------------------------------------------------------------------------------------

HOLDERS = {
    "adam": lambda: optax.adam(1e-3),
    "adamw in a chain": lambda: optax.chain(optax.clip_by_global_norm(1e9), optax.adamw(1e-3, weight_decay=0.0)),
    "hyperparameters injected": lambda: optax.inject_hyperparams(optax.adam)(1e-3),
    "masked": lambda: optax.masked(optax.scale_by_adam(), True),
    "apply_if_finite": lambda: optax.apply_if_finite(optax.adam(1e-3), 3),
    "multi_transform": lambda: optax.multi_transform(
        {"one": optax.adam(1e-3), "two": optax.adam(1e-2)}, {"a": "one", "b": "two"}
    ),
    "a count per entry": lambda: scale_by_adam_per_entry(0.9, 0.999, 1e-8),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_the_same_moments_are_found_wherever_they_are_kept(name):
    m, v = moments(4)
    found = diagnose(opt_state=after(HOLDERS[name](), 4), choose=NAMES)
    expected = np.linalg.norm(m), np.linalg.norm(v), ratio(m, v, 4).mean(), ratio(m, v, 4).max()
    for key, value in zip(NAMES, expected, strict=True):
        assert float(found[key]) == pytest.approx(value, rel=1e-3), key
    assert {f"{key}/{layer}" for key in NAMES for layer in "ab"} | set(NAMES) == set(found)


def test_injected_decays_are_used():
    tx = optax.inject_hyperparams(optax.adam)(1e-3, b1=0.5, b2=0.9)
    m, v = moments(3, 0.5, 0.9)
    found = diagnose(opt_state=after(tx, 3), choose=NAMES)
    assert float(found["moment_ratio_mean"]) == pytest.approx(ratio(m, v, 3, 0.5, 0.9).mean(), rel=1e-3)


def test_optimizers_with_one_moment_have_no_ratio():
    momentum, rms = after(optax.sgd(0.1, momentum=0.9), 2), after(optax.rmsprop(0.1, decay=0.9), 2)
    trace = 0.9 * entries(gradient(0)) + entries(gradient(1))
    assert set(diagnose(opt_state=momentum)) == {"first_moment_norm", "first_moment_norm/a", "first_moment_norm/b"}
    assert float(diagnose(opt_state=momentum)["first_moment_norm"]) == pytest.approx(np.linalg.norm(trace), rel=1e-5)
    assert set(diagnose(opt_state=rms)) == {"second_moment_norm", "second_moment_norm/a", "second_moment_norm/b"}
    for state, name in ((momentum, "second_moment_norm"), (rms, "moment_ratio_max"), (momentum, "moment_ratio_mean")):
        with pytest.raises(UserError, match="opt_state= holds no"):
            diagnose(opt_state=state, choose=[name])


@pytest.mark.parametrize("tx", [optax.sgd(0.1), optax.adafactor(0.1)], ids=["sgd", "adafactor"])
def test_states_without_moments_are_told(tx):
    with pytest.raises(UserError, match=r"opt_state holds no moments.*made of"):
        diagnose(opt_state=tx.init({"h": jnp.ones((200, 200))}), choose=["first_moment_norm"])


def test_what_is_no_state_is_told():
    for state in ({}, (), {"h": np.ones(3)}):
        with pytest.raises(UserError, match="opt_state holds no moments"):
            diagnose(opt_state=state, choose=["moment_ratio_max"])


def test_order_of_units_does_not_matter():
    state = after(ADAM, 3)
    order = np.array([2, 0, 1])

    def moved(tree):
        a = {"kernel": tree["a"]["kernel"][:, order], "bias": tree["a"]["bias"][order]}
        return {"a": a, "b": {"kernel": tree["b"]["kernel"][order]}}

    before = compiled(state, 0.9, 0.999)
    after_ = compiled(state._replace(mu=moved(state.mu), nu=moved(state.nu)), 0.9, 0.999)
    for name, value in before.items():
        assert float(after_[name]) == pytest.approx(float(value), rel=1e-5), name
