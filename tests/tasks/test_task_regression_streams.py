"""offset_regression and target_drift against hand-worked numbers, and the random functions under both."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from plasticity.errors import UserError
from tasks.base import tasks
from tasks.streams._random_function import draw, renewed, wave

OffsetRegression = tasks.get("offset_regression")
TargetDrift = tasks.get("target_drift")
SIZES = {"examples_used": 200, "batch_size": 20, "pool": 4}


@jax.jit
def _contexts(task, key, data):
    def switch(context, index):
        context = task.following(context, jax.random.fold_in(key, index), index, data)
        return context, context

    first = task.first(key, data)
    _, rest = jax.lax.scan(switch, first, jnp.arange(1, task.num_tasks))
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)


def contexts(task, data, seed=0):
    """The contexts of all tasks, stacked."""
    # Where the length of the stream has no part in it, one length is compiled for all.
    walks = getattr(task, "drift", "") == "random_walk"
    whole = task if walks else dataclasses.replace(task, num_tasks=12)
    stacked = _contexts(whole, jax.random.key(seed), data)
    return jax.tree.map(lambda leaf: np.asarray(leaf[: task.num_tasks]), stacked)


def offsets_and_scales(drift):
    """What is added to and what multiplies e, read off the targets by a fit; e is the same in all tasks."""
    e = drift.targets[0]
    scale, offset = np.polynomial.polynomial.polyfit(e, drift.targets.T, 1)[::-1]
    return offset, scale


# The random function --------------------------------------------------------------------------------------------------


def test_f_is_standardised_and_e_has_the_variance_stated(data):
    f = jax.jit(jax.vmap(lambda key: draw(key, data)))(jax.random.split(jax.random.key(0), 50))
    np.testing.assert_allclose(f.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(f.std(1), 1, rtol=1e-5)
    for frequency in (1.0, 3.0, 1e5):
        e = wave(f, frequency)
        assert jnp.abs(e).max() <= 1
        assert float(e.var(1).mean()) == pytest.approx((1 - math.exp(-2 * frequency**2)) / 2, rel=0.05)


def test_f_equals_a_rewrite_in_numpy(data):
    """Same weights, plain matrix products in double precision."""
    key_in, key_out = jax.random.split(jax.random.key(4))
    into = np.asarray(jax.random.normal(key_in, (49, 128)), float) * math.sqrt(2 / 49)
    out = np.asarray(jax.random.normal(key_out, (128,)), float) / math.sqrt(128)
    images = np.asarray(data.images, float).reshape(200, 49) / 255
    x = (images - images.mean()) / images.std()
    f = np.maximum(x @ into, 0) @ out
    np.testing.assert_allclose(draw(jax.random.key(4), data), (f - f.mean()) / f.std(), atol=1e-4)


def test_the_first_function_is_drawn_from_the_key(data):
    for task in (OffsetRegression(num_tasks=6, pretrain=3, **SIZES), TargetDrift(offset=0.0, num_tasks=4, **SIZES)):
        one, other = (contexts(task, data, seed) for seed in (0, 1))
        first = [np.asarray(getattr(context, "targets", context))[0] for context in (one, other)]
        assert abs(np.corrcoef(*first)[0, 1]) < 0.4


@pytest.mark.parametrize("frequency", [1.0, 3.0, 1e5])
def test_the_share_renewed_is_one_minus_the_correlation(frequency, data):
    @jax.jit
    @jax.vmap
    def correlations(key):
        key_old, key_new = jax.random.split(key)
        f = draw(key_old, data)
        new = jnp.stack([renewed(f, key_new, share, frequency, data) for share in (0.1, 0.5, 0.9, 1.0)])
        return jnp.corrcoef(wave(jnp.concatenate([f[None], new]), frequency))[0, 1:]

    found = np.asarray(correlations(jax.random.split(jax.random.key(0), 40))).mean(0)
    # Exact for Gaussian f, which that of a network of 128 units is not quite.
    np.testing.assert_allclose(found, [0.9, 0.5, 0.1, 0.0], atol=0.06)


# target_drift ---------------------------------------------------------------------------------------------------------


def test_growth_by_hand(data):
    drift = contexts(TargetDrift(offset=2.0, scale=0.5, redraw=0.0, num_tasks=4, **SIZES), data)
    offset, scale = offsets_and_scales(drift)
    np.testing.assert_allclose(offset, [0, 2, 4, 6], atol=1e-4)
    np.testing.assert_allclose(scale, [1, 1.5, 2, 2.5], atol=1e-4)


def test_sinusoid_by_hand(data):
    task = TargetDrift(drift="sinusoid", offset=3.0, scale=0.5, redraw=0.0, period=4, num_tasks=6, **SIZES)
    offset, scale = offsets_and_scales(contexts(task, data))
    np.testing.assert_allclose(offset, [0, 3, 0, -3, 0, 3], atol=1e-4)
    np.testing.assert_allclose(scale, [1, 1.5, 1, 0.5, 1, 1.5], atol=1e-4)


def test_cyclic_by_hand(data):
    """Three tasks in turn: the same offsets, scales and functions return to the bit."""
    task = TargetDrift(drift="cyclic", offset=2.0, scale=0.5, redraw=1.0, phase=0.3, period=3, num_tasks=8, **SIZES)
    targets = contexts(task, data).targets
    np.testing.assert_array_equal(targets, targets[np.arange(8) % 3])
    np.testing.assert_allclose(targets[:3].mean(1), [0, 2, 4], atol=0.4)
    np.testing.assert_allclose(targets[:3].max(1) - targets[:3].min(1), [2, 3, 4], atol=0.3)
    apart = np.corrcoef(targets[:3])[np.triu_indices(3, 1)]
    assert np.abs(apart).max() < 0.4
    still = contexts(dataclasses.replace(task, redraw=0.0, phase=0.0), data)
    offset, scale = offsets_and_scales(still)
    np.testing.assert_allclose(offset, [0, 2, 4, 0, 2, 4, 0, 2], atol=1e-4)
    np.testing.assert_allclose(scale, [1, 1.5, 2, 1, 1.5, 2, 1, 1.5], atol=1e-4)


def test_the_share_redrawn_within_a_turn_is_that_asked_for(data):
    """And at the return to the first task, where the chain begins again, the function is the first one."""
    task = TargetDrift(drift="cyclic", offset=0.0, redraw=0.1, period=5, num_tasks=12, **SIZES)
    e = contexts(task, data).targets
    neighbours = [np.corrcoef(a, b)[0, 1] for a, b in itertools.pairwise(e[:5])]
    assert 0.75 < np.mean(neighbours) < 0.98
    np.testing.assert_array_equal(e[5], e[0])


def test_abrupt_draws_offset_and_scale_afresh_within_their_range(data):
    task = TargetDrift(drift="abrupt", offset=2.0, scale=0.5, redraw=0.0, num_tasks=12, **SIZES)
    drift = contexts(task, data)
    offset, scale = offsets_and_scales(drift)
    np.testing.assert_array_equal(drift.walk[0], 0)
    np.testing.assert_allclose(offset, 2 * drift.walk[:, 0], atol=1e-4)
    np.testing.assert_allclose(scale, np.exp(0.5 * drift.walk[:, 1]), atol=1e-4)

    @jax.jit
    @jax.vmap
    def jumps(key):
        context = task.first(key, data)._replace(walk=jnp.array([0.9, -0.9]))
        return task.following(context, key, jnp.int32(1), data).walk

    found = np.asarray(jumps(jax.random.split(jax.random.key(0), 400)))
    for walk in found.T:
        assert stats.kstest(walk, stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert stats.pearsonr(*found.T).pvalue > 1e-3


@pytest.mark.parametrize("drift", ["growth", "sinusoid", "random_walk", "abrupt"])
def test_a_phase_rotates_the_targets_and_leaves_the_rest(drift, data):
    """e_t = sin(3 f + t / 2), with the same f, offsets and scales as without a phase."""
    task = TargetDrift(drift=drift, offset=1.0, scale=0.2, redraw=0.0, num_tasks=6, **SIZES)
    still, turning = contexts(task, data), contexts(dataclasses.replace(task, phase=0.5), data)
    offset, scale = offsets_and_scales(still)
    e = (turning.targets - offset[:, None]) / scale[:, None]
    np.testing.assert_allclose(e, np.sin(3 * still.f[0] + 0.5 * np.arange(6)[:, None]), atol=1e-4)


def test_a_quarter_turn_is_uncorrelated_and_half_a_turn_the_opposite(data):
    task = TargetDrift(offset=0.0, redraw=0.0, phase=math.pi / 2, num_tasks=5, **SIZES)
    r = np.corrcoef(contexts(task, data).targets)[0]
    np.testing.assert_allclose(r, [1, 0, -1, 0, 1], atol=0.15)


def test_random_walk_follows_its_walk_from_zero(data):
    task = TargetDrift(drift="random_walk", offset=2.0, scale=0.1, redraw=0.0, num_tasks=6, **SIZES)
    drift = contexts(task, data)
    offset, scale = offsets_and_scales(drift)
    np.testing.assert_array_equal(drift.walk[0], 0)
    np.testing.assert_allclose(offset, 2 * drift.walk[:, 0], atol=1e-3)
    np.testing.assert_allclose(scale, np.exp(0.1 * drift.walk[:, 1]), atol=1e-3)


def test_the_walks_have_independent_normal_steps_and_keep_their_bound(data):
    task = TargetDrift(drift="random_walk", num_tasks=5, **SIZES)
    bound = 3 * math.sqrt(4)

    @jax.jit
    @jax.vmap
    def walks(key):
        context = task.first(key, data)._replace(walk=jnp.array([0.0, 5.9]))
        return task.following(context, key, jnp.int32(1), data).walk

    free, near = np.asarray(walks(jax.random.split(jax.random.key(0), 400))).T
    assert stats.kstest(free, "norm").pvalue > 1e-3
    assert stats.pearsonr(free, near).pvalue > 1e-3
    assert near.max() == pytest.approx(bound)
    assert 0.3 < (near == near.max()).mean() < 0.6, "a step from 5.9 leaves the bound of 6 with probability 0.46"


@pytest.mark.parametrize(
    ("fields", "low", "high"),
    [
        # Tasks 0..3: offsets 0 2 4 6, scales 1 1.5 2 2.5.
        ({"offset": 2.0, "scale": 0.5, "num_tasks": 4}, -1.0, 8.5),
        # Offsets 0 1 2, scales 1 3 5: the lowest target is the last task's, 2 - 5.
        ({"offset": 1.0, "scale": 2.0, "num_tasks": 3}, -3.0, 7.0),
        ({"offset": 5.0, "num_tasks": 1}, -1.0, 1.0),
        # Offsets 0 3 0 -3, scales 1 1.5 1 0.5.
        ({"drift": "sinusoid", "period": 4, "offset": 3.0, "scale": 0.5, "num_tasks": 8}, -3.5, 4.5),
        ({"drift": "sinusoid", "period": 4, "offset": 3.0, "scale": 0.5, "num_tasks": 2}, -1.0, 4.5),
        # Positions 0 1 2 0 1 2: offsets 0 2 4, scales 1 1.5 2.
        ({"drift": "cyclic", "period": 3, "offset": 2.0, "scale": 0.5, "num_tasks": 6}, -1.0, 6.0),
        ({"drift": "cyclic", "period": 3, "offset": 2.0, "scale": 0.5, "num_tasks": 2}, -1.0, 3.5),
        ({"phase": 0.7, "offset": 2.0, "scale": 0.5, "num_tasks": 4}, -1.0, 8.5),
        (
            {"drift": "abrupt", "offset": 2.0, "scale": 0.5, "num_tasks": 12},
            -2 - math.exp(0.5),
            2 + math.exp(0.5),
        ),
        # 3 sigma after 4 steps is 6: offset 12, scale exp(0.6).
        (
            {"drift": "random_walk", "offset": 2.0, "scale": 0.1, "num_tasks": 5},
            -12 - math.exp(0.6),
            12 + math.exp(0.6),
        ),
        ({"drift": "random_walk", "offset": 2.0, "scale": 0.1, "num_tasks": 1}, -1.0, 1.0),
    ],
)
def test_target_range_by_hand_and_it_holds(fields, low, high, data):
    task = TargetDrift(**fields, **SIZES)
    assert task.problem(data).target_range == pytest.approx((low, high))
    targets = contexts(task, data).targets
    assert targets.min() >= low
    assert targets.max() <= high
    if task.drift not in ("random_walk", "abrupt"):
        # Exact: sin reaches its ends among the 200 examples to a few per cent of the scale.
        assert targets.min() == pytest.approx(low, abs=0.1 * (high - low))
        assert targets.max() == pytest.approx(high, abs=0.1 * (high - low))


def test_redraw_zero_keeps_the_function_to_the_bit(data):
    drift = contexts(TargetDrift(offset=0.0, scale=0.0, redraw=0.0, num_tasks=4, **SIZES), data)
    assert (drift.targets == drift.targets[0]).all()


def test_redraw_one_is_a_fresh_function_each_task(data):
    e = contexts(TargetDrift(offset=0.0, num_tasks=12, **SIZES), data).targets
    apart = np.corrcoef(e)[np.triu_indices(12, 1)]
    assert np.abs(apart).max() < 0.4
    assert abs(apart.mean()) < 0.05


def test_a_growing_mean_leaves_the_variance(data):
    targets = contexts(TargetDrift(offset=4.0, num_tasks=5, **SIZES), data).targets
    np.testing.assert_allclose(targets.mean(1), 4 * np.arange(5), atol=0.3)
    np.testing.assert_allclose(targets.var(1), 0.5, atol=0.15)


def test_an_unknown_drift_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'sinusoid'"):
        TargetDrift(drift="sinusiod")


# offset_regression ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("carry", "mean"), [(1.0, 10.0), (0.5, 5.0), (0.0, 0.0)])
def test_stationary_while_pretraining_then_fresh_around_the_mean_carried(carry, mean, data):
    targets = contexts(OffsetRegression(offset=10.0, pretrain=3, carry=carry, num_tasks=6, **SIZES), data)
    assert (targets[:3] == targets[0]).all()
    np.testing.assert_allclose(targets[:3].mean(1), 10, atol=0.3)
    np.testing.assert_allclose(targets[3:].mean(1), mean, atol=0.3)
    assert np.abs(targets[:3] - 10).max() <= 1 + 1e-6
    assert np.abs(targets[3:] - mean).max() <= 1 + 1e-6
    apart = np.corrcoef(targets[2:])[np.triu_indices(4, 1)]
    assert np.abs(apart).max() < 0.4, "each fresh function is another"


@pytest.mark.parametrize(
    ("fields", "low", "high"),
    [
        ({"offset": 10.0, "carry": 1.0}, 9, 11),
        ({"offset": 10.0, "carry": 0.0}, -1, 11),
        ({"offset": -10.0, "carry": 0.5}, -11, -4),
        ({"offset": 10.0, "carry": 0.0, "pretrain": 6}, 9, 11),
    ],
)
def test_offset_range_by_hand(fields, low, high, data):
    task = OffsetRegression(num_tasks=6, **{"pretrain": 3, **fields}, **SIZES)
    assert task.problem(data).target_range == (low, high)
    targets = contexts(task, data)
    assert targets.min() >= low
    assert targets.max() <= high


def test_the_offset_shifts_the_same_function(data):
    """The control that the study needs: the seed fixes e, whatever the offset."""
    small, large = (contexts(OffsetRegression(offset=o, num_tasks=6, pretrain=3, **SIZES), data) for o in (0.0, 100.0))
    np.testing.assert_allclose(large - small, 100, atol=1e-4)
