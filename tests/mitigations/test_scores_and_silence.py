"""ReGraMa, self-normalised resets and continuous partial resets on numbers written down by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity.diagnostics.tracking import FiringAges
from plasticity.heads import Regression
from plasticity.mitigations import Setting
from plasticity.mitigations.cpr import CPR
from plasticity.mitigations.regrama import ReGraMa
from plasticity.mitigations.self_normalised_resets import SelfNormalisedResets, Silence, renewed_threshold, silenced
from plasticity.network import Activation
from plasticity.networks import Architecture, networks

NETWORK = networks.get("mlp")(4, 1).build(Architecture(Regression(-1.0, 1.0)))
X = jnp.ones((2, 3))
SETTING = Setting(NETWORK, lambda key: NETWORK.init(key, X), 0.1, jax.random.key(1))
PARAMS = jax.tree.map(jnp.ones_like, NETWORK.init(jax.random.key(0), X)["params"])


def reset_units(updates):
    """Which units of the layer were reset: their outgoing weights lead to zero."""
    return (np.asarray(updates["output"]["kernel"])[:, 0] == -1).tolist()


# ReGraMa ----------------------------------------------------------------------------------------------------------


def gradients(*columns):
    """Gradients of which the incoming weights of unit i are all +-columns[i]."""
    grads = jax.tree.map(jnp.zeros_like, PARAMS)
    signs = jnp.array([1.0, -1.0, 1.0])[:, None]
    grads["hidden_0"] = {"kernel": signs * jnp.array(columns), "bias": jnp.full(4, 100.0)}
    return grads


@pytest.mark.parametrize(
    ("tau", "expected"),
    [
        (0.4, [True, False, False, True]),  # scores 0, .8, 2.8, .4: mean 1
        (0.39, [True, False, False, False]),
        (0.8, [True, True, False, True]),
        (0.0, [True, False, False, False]),
        (-1.0, [False] * 4),
    ],
)
def test_scores_are_means_of_magnitudes_over_the_layers_mean_and_biases_do_not_count(tau, expected):
    # The inner optimiser lets nothing through, so that what changes was reset.
    tx = ReGraMa(tau, every=1).optimizer(optax.set_to_zero(), SETTING)
    updates, _ = tx.update(gradients(0.0, 0.2, 0.7, 0.1), tx.init(PARAMS), PARAMS)
    assert reset_units(updates) == expected


@pytest.mark.parametrize("grace", [0, 1, 2])
def test_a_recycled_unit_has_its_grace_and_only_checks_use_it_up(grace):
    """Checks at updates 2, 4, 6, 8; unit 0 has no gradient in any of them."""
    tx = ReGraMa(0.0, every=2, grace=grace).optimizer(optax.set_to_zero(), SETTING)
    state, found, update = tx.init(PARAMS), [], jax.jit(tx.update)
    for _ in range(8):
        updates, state = update(gradients(0.0, 1.0, 1.0, 1.0), state, PARAMS)
        found.append(reset_units(updates))
    assert [bool(f[0]) for f in found] == [t % 2 == 0 and (t // 2 - 1) % (grace + 1) == 0 for t in range(1, 9)]
    assert not any(any(f[1:]) for f in found)


def test_a_layer_without_gradient_is_inactive_as_a_whole():
    tx = ReGraMa(0.01, every=1).optimizer(optax.set_to_zero(), SETTING)
    updates, _ = tx.update(gradients(0.0, 0.0, 0.0, 0.0), tx.init(PARAMS), PARAMS)
    assert reset_units(updates) == [True] * 4


# Self-normalised resets -------------------------------------------------------------------------------------------


def silence(histograms, tau, age=0, bins=64):
    """A layer whose unit i has these counts by interval and a threshold tau[i]."""
    counts = np.zeros((len(histograms), bins), np.int32)
    for i, histogram in enumerate(histograms):
        for interval, count in histogram.items():
            counts[i, interval - 1] = count
    n = len(histograms)
    ages = FiringAges(jnp.full(n, age, jnp.int32), jnp.ones(n, bool), jnp.asarray(counts))
    return Silence(ages, jnp.asarray(tau, jnp.float32))


def test_thresholds_by_hand():
    """Catalogue, oracle O18: counts {1: 90, 2: 9, 50: 1} at .98 give 2; without intervals nothing changes."""
    o18 = {1: 90, 2: 9, 50: 1}
    histograms = [o18, {}, o18, o18, {1: 90, 2: 8, 50: 2}, {1: 90, 2: 7, 50: 3}, {64: 5}]
    #             contracts, stays, is not below 1: doubles, not below 2, exactly .98, the tail counts, at most 64
    before = [64.0, 17.0, 1.0, 2.0, 64.0, 64.0, 40.0]
    after = renewed_threshold(silence(histograms, before), jnp.float32(0.98))
    assert after.tau.tolist() == [2.0, 17.0, 2.0, 4.0, 2.0, 50.0, 64.0]
    assert not np.any(after.ages.histogram)


def test_a_reset_counts_the_interval_that_it_cuts_short():
    after = silenced(silence([{3: 1}, {3: 1}], [5.0, 5.0], age=5), jnp.array([True, False]))
    assert after.ages.age.tolist() == [0, 5]
    assert {i + 1: int(c) for i, c in enumerate(after.ages.histogram[0]) if c} == {3: 1, 5: 1}
    assert after.ages.histogram[1].sum() == 1
    # Beyond the last bin it is in the last bin.
    assert silenced(silence([{}], [2.0], age=9, bins=4), jnp.array([True])).ages.histogram.tolist() == [[0, 0, 0, 1]]


def firing(tx, pattern, units=4):
    """Resets and thresholds after each update; pattern[t][i]: whether unit i fires in update t, on one row of two."""
    post = jnp.stack([jnp.zeros_like(jnp.asarray(pattern, jnp.float32)), jnp.asarray(pattern, jnp.float32)], 1)

    def step(state, h):
        updates, state = tx.update(
            jax.tree.map(jnp.zeros_like, PARAMS), state, PARAMS, activations={"hidden_0": Activation(h, h)}
        )
        return state, (updates["output"]["kernel"][:, 0] == -1, state.memory["hidden_0"])

    return jax.tree.map(np.asarray, jax.jit(lambda post: jax.lax.scan(step, tx.init(PARAMS), post)[1])(post))


def test_units_are_reset_when_they_are_silent_for_longer_than_they_use_to_be():
    """Window of 20, at most 16. Unit 0 fires in every update, unit 1 in every third, 2 never, 3 until update 22."""
    t = np.arange(1, 41)
    pattern = np.stack([t > 0, t % 3 == 0, t < 0, t <= 22], axis=1)
    tx = SelfNormalisedResets(0.9, window=20, longest=16).optimizer(optax.identity(), SETTING)
    reset, memory = firing(tx, pattern)
    times = [(np.flatnonzero(reset[:, i]) + 1).tolist() for i in range(4)]
    # Unit 2: silent 16 updates, its threshold all through: the interval that is cut short doubles to no more than 16.
    # Unit 3: intervals of 1, threshold 1 from update 20 on, so any update without firing resets it, until it doubles.
    assert times == [[], [], [16, 32], [*range(23, 40)]]
    assert memory.tau[18].tolist() == [16] * 4
    assert memory.tau[20].tolist() == [1, 3, 16, 1]
    # In the second window unit 0 has intervals of 1 only, at its threshold, not below it: doubled. Unit 3 likewise.
    assert memory.tau[39].tolist() == [2, 6, 16, 2]


def test_an_updates_threshold_is_not_reached_before_it():
    tx = SelfNormalisedResets(longest=3, window=100).optimizer(optax.identity(), SETTING)
    reset, memory = firing(tx, np.array([[1, 0, 0, 1], [0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]]))
    assert [(np.flatnonzero(reset[:, i]) + 1).tolist() for i in range(4)] == [[4], [], [5], []]
    assert memory.ages.age[-1].tolist() == [1, 2, 0, 0]


def test_a_crelu_unit_is_silent_only_if_both_features_are():
    network = networks.get("mlp")(4, 1).build(Architecture(Regression(-1.0, 1.0), activation="crelu"))
    setting = Setting(network, lambda key: network.init(key, X), 0.1, jax.random.key(1))
    params = network.init(jax.random.key(0), X)["params"]
    tx = SelfNormalisedResets(longest=1).optimizer(optax.identity(), setting)
    h = jnp.array([[1.0, 0, 0, 0, 0, 2.0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 3.0]])
    _, state = tx.update(
        jax.tree.map(jnp.zeros_like, params), tx.init(params), params, activations={"hidden_0": Activation(h, h)}
    )
    assert state.memory["hidden_0"].ages.histogram.sum(1).tolist() == [0, 0, 1, 0]


# Continuous partial resets ----------------------------------------------------------------------------------------


def test_partial_resets_by_hand():
    """Scores 0, .4, 1.2 and 2.4 in the first update, sharpness 8: shares are strength times 1, 1, .336 and 0."""
    start = setting_of_constants()
    params = jax.tree.map(lambda p: p * 2.0, PARAMS)
    tx = CPR(0.25, sharpness=8.0, every=1).optimizer(optax.set_to_zero(), start)
    updates, state = tx.update(gradients(0.0, 0.2, 0.6, 1.2), tx.init(params), params)
    after = optax.apply_updates(params, updates)
    share = 0.25 * np.array([1, 1, 2 / (1 + np.exp(8 * 0.2)), 2 / (1 + np.exp(8 * 1.4))])
    assert share[3] < 1e-5
    np.testing.assert_allclose(after["hidden_0"]["kernel"], np.tile(2 + 4 * share, (3, 1)), rtol=1e-5)
    np.testing.assert_allclose(after["hidden_0"]["bias"], 2 + 4 * share, rtol=1e-5)
    np.testing.assert_allclose(after["output"]["kernel"][:, 0], 2 * (1 - share), rtol=1e-5)
    np.testing.assert_array_equal(after["output"]["bias"], params["output"]["bias"])
    # Averages, corrected: of 0 and 2 at decay .75 it is (.75 x 0 + 1 x 2) / 1.75.
    tx = CPR(0.25, decay=0.75, every=5).optimizer(optax.set_to_zero(), start)
    state = tx.init(params)
    for first in (0.0, 1.0):
        updates, state = tx.update(gradients(first, 1 - first, 0.5, 0.5), state, params)
        assert not any(np.any(u) for u in jax.tree.leaves(updates))
    scores = state.memory["hidden_0"]
    np.testing.assert_allclose((scores.average / scores.mass)[0], 2 / 1.75, rtol=1e-5)


def setting_of_constants():
    """A setting in which whatever is drawn is 6."""
    fresh = {"params": jax.tree.map(lambda p: jnp.full_like(p, 6.0), PARAMS)}
    return Setting(NETWORK, lambda key: fresh, 0.1, jax.random.key(1))
