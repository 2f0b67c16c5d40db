"""label_reset and class_permutation: a switch changes exactly what it says, and nothing else in distribution."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from plasticity.errors import UserError
from tasks.base import tasks

LabelReset = tasks.get("label_reset")
ClassPermutation = tasks.get("class_permutation")
SIZES = {"examples_used": 200, "batch_size": 20, "pool": 4}


@jax.jit
def _after_switches(task, first_key, keys, data):
    def switch(context, key):
        context = task.following(context, key, jnp.int32(1), data)
        return context, context

    first = task.first(first_key, data)
    return first, jax.lax.scan(switch, first, keys)[1]


def after_switches(task, data, switches=40):
    """The contexts of all tasks, `[switches + 1, ...]`."""
    first, rest = _after_switches(task, jax.random.key(0), jax.random.split(jax.random.key(1), switches), data)
    return np.concatenate([np.asarray(first)[None], np.asarray(rest)])


# label_reset ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("eps", "count"), [(0.0, 0), (0.004, 1), (0.3, 60), (0.5, 100), (0.999, 200), (1.0, 200)])
def test_exactly_the_share_eps_is_redrawn(eps, count, data):
    """With a million classes a fresh label is another one, so that the changes count the labels re-drawn."""
    many = dataclasses.replace(data, counts=(1,) * 1_000_000)
    task = LabelReset(eps=eps, **SIZES)
    labels = after_switches(task, many)
    np.testing.assert_array_equal((labels[1:] != labels[:-1]).sum(1), count)


def test_every_example_is_as_likely_to_be_redrawn(data):
    many = dataclasses.replace(data, counts=(1,) * 1_000_000)
    labels = after_switches(LabelReset(eps=0.3, **SIZES), many)
    redrawn = (labels[1:] != labels[:-1]).sum(0)
    assert stats.chisquare(redrawn).pvalue > 1e-3


def test_eps_zero_changes_nothing_and_eps_one_changes_nine_of_ten(data):
    """A fresh label out of ten is the old one in one of ten cases."""
    still = after_switches(LabelReset(eps=0.0, **SIZES), data)
    assert (still == still[0]).all()
    moved = after_switches(LabelReset(eps=1.0, **SIZES), data)
    changed = int((moved[1:] != moved[:-1]).sum())
    assert stats.binomtest(changed, 40 * 200, 0.9).pvalue > 1e-3


@pytest.mark.parametrize("eps", [0.3, 1.0])
def test_labels_stay_uniform(eps, data):
    labels = after_switches(LabelReset(eps=eps, **SIZES), data)
    assert labels.dtype == np.int32
    for task in (0, 40):
        assert stats.chisquare(np.bincount(labels[task], minlength=10)).pvalue > 1e-3
    # The fresh labels alone, pooled over switches: of the changed ones each class but the old is as likely.
    step = (labels[1:] - labels[:-1]) % 10
    assert stats.chisquare(np.bincount(step[step > 0], minlength=10)[1:]).pvalue > 1e-3


def test_labels_owe_nothing_to_the_true_ones(data):
    labels = after_switches(LabelReset(**SIZES), data)
    table = stats.contingency.crosstab(np.tile(np.asarray(data.labels), 41), labels.ravel()).count
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_first_true_begins_with_the_true_labels(data):
    np.testing.assert_array_equal(LabelReset(first_true=True).first(jax.random.key(0), data), data.labels)
    for seed in (0, 1):
        assert (LabelReset().first(jax.random.key(seed), data) != data.labels).mean() > 0.8


def test_the_first_labels_are_drawn_from_the_key(data):
    one, other = (LabelReset().first(jax.random.key(seed), data) for seed in (0, 1))
    assert 0.8 < (one != other).mean() < 1


def test_matched_keeps_the_updates_and_the_rate_of_change():
    task = LabelReset.matched(0.1, steps=1000, num_tasks=20, **SIZES)
    assert (task.eps, task.steps, task.num_tasks, task.examples_used) == (0.1, 100, 200, 200)
    whole = LabelReset.matched(1.0, steps=1000, num_tasks=20)
    assert (whole.steps, whole.num_tasks) == (1000, 20)
    for eps in (0.05, 0.3, 0.7):
        task = LabelReset.matched(eps, steps=1000, num_tasks=20)
        assert task.eps / task.steps == pytest.approx(1 / 1000)
        assert task.steps * task.num_tasks == pytest.approx(20_000, abs=task.steps / 2)
    with pytest.raises(UserError, match=r"eps \* steps must be at least 1 update, got 0.001 \* 400"):
        LabelReset.matched(0.001, steps=400, num_tasks=20)


def test_eps_outside_its_range_is_an_error():
    with pytest.raises(UserError, match=r"label_reset: eps must be >= 0 and <= 1, got 1\.5"):
        LabelReset(eps=1.5)


# class_permutation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.05, 2), (0.1, 2), (0.3, 3), (0.5, 5), (1.0, 10)])
def test_exactly_the_share_of_classes_is_renamed(share, count, data):
    names = after_switches(ClassPermutation(share=share, **SIZES), data)
    np.testing.assert_array_equal(names[0], np.arange(10))
    np.testing.assert_array_equal(np.sort(names, axis=1), np.tile(np.arange(10), (41, 1)))
    np.testing.assert_array_equal((names[1:] != names[:-1]).sum(1), count)


def test_every_class_is_as_likely_to_be_renamed_to_any_other(data):
    names = after_switches(ClassPermutation(share=0.3, **SIZES), data, switches=400)
    moved = names[1:] != names[:-1]
    assert stats.chisquare(moved.sum(0)).pvalue > 1e-3
    to = (names[1:] - names[:-1])[moved] % 10
    assert stats.chisquare(np.bincount(to, minlength=10)[1:]).pvalue > 1e-3


def test_a_class_keeps_its_members(data):
    task = ClassPermutation(**SIZES)
    context = jnp.asarray(after_switches(task, data)[1])
    y = np.asarray(task.examples(context, jnp.arange(200), data).y)
    true = np.asarray(data.labels)
    assert len(set(zip(true.tolist(), y.tolist(), strict=True))) == 10
    np.testing.assert_array_equal(y, np.asarray(context)[true])


def test_chance_is_the_largest_class(data):
    largest = np.bincount(np.asarray(data.labels)).max() / 200
    assert ClassPermutation().problem(data).chance == pytest.approx(largest)
    assert LabelReset().problem(data).chance == pytest.approx(0.1)
