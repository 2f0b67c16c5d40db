"""label_reset and class_permutation: a switch changes exactly what it says, and nothing else in distribution."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from plasticity.errors import UserError
from plasticity.spec import build_one, to_text
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


def test_the_matched_budget_keeps_the_updates_and_the_rate_of_change():
    task = build_one("label_reset(0.1, steps=1000, num_tasks=20, budget=matched, examples_used=200)", tasks)
    assert (task.eps, task.steps, task.num_tasks, task.examples_used) == (0.1, 100, 200, 200)
    whole = LabelReset(eps=1.0, steps=1000, num_tasks=20, budget="matched")
    assert (whole.steps, whole.num_tasks) == (1000, 20)
    for eps in (0.05, 0.3, 0.7, 0.001):
        task = LabelReset(eps=eps, steps=1000, num_tasks=20, budget="matched")
        assert task.eps / task.steps == pytest.approx(1 / 1000, rel=1e-9)
        assert task.steps * task.num_tasks == pytest.approx(20_000, abs=task.steps / 2)


def test_a_matched_config_is_written_out():
    """Its text is that of the tasks it has, so that it is read back, and copied, as what it is."""
    task = LabelReset(eps=0.25, steps=400, num_tasks=30, budget="matched")
    assert task == LabelReset(eps=0.25, steps=100, num_tasks=120)
    assert to_text(task) == "label_reset(steps=100, num_tasks=120, eps=0.25)"
    assert dataclasses.replace(task, transition=0.5).steps == 100


@pytest.mark.parametrize(("eps", "steps", "product"), [(0.001, 400, "0.4"), (0.3, 401, "120.3"), (0.0, 400, "0")])
def test_a_matched_budget_of_no_whole_number_of_updates_is_an_error(eps, steps, product):
    with pytest.raises(
        UserError, match=rf"eps \* steps must be a whole number of updates, got {eps} \* {steps} = {product}"
    ):
        LabelReset(eps=eps, steps=steps, budget="matched")


@pytest.mark.parametrize(("eps", "count"), [(0.0, 0), (0.3, 60), (1.0, 200)])
def test_shuffled_labels_move_among_the_share_eps_and_keep_their_numbers(eps, count, data):
    """With a label of its own each example chosen changes, unless it is given its own back."""
    own = dataclasses.replace(data, labels=jnp.arange(200, dtype=jnp.int32))
    task = LabelReset(eps=eps, redraw="shuffle", **SIZES)
    labels = after_switches(task, own)
    np.testing.assert_array_equal(np.sort(labels, axis=1), np.tile(np.arange(200), (41, 1)))
    changed = (labels[1:] != labels[:-1]).sum(1)
    assert changed.max() <= count
    # A random permutation leaves one example in place on average.
    assert abs(changed.mean() - max(count - 1, 0)) < 0.8
    assert np.bincount(labels[0], minlength=200).max() == 1
    kept = after_switches(task, data)
    for row in kept:
        np.testing.assert_array_equal(np.bincount(row, minlength=10), data.counts)


def test_shuffled_labels_go_to_every_example_alike(data):
    """Of 200 labels, all different, number 0 is found everywhere equally often."""
    own = dataclasses.replace(data, labels=jnp.arange(200, dtype=jnp.int32))
    labels = after_switches(LabelReset(redraw="shuffle", **SIZES), own, switches=1000)
    where = np.argmax(labels[1:] == 0, axis=1)
    assert stats.chisquare(np.bincount(where, minlength=200)).pvalue > 1e-3
    step = (labels[1:] - labels[:-1]) % 200
    assert stats.chisquare(np.bincount(step.ravel(), minlength=200)).pvalue > 1e-3


def test_the_first_shuffled_labels_are_the_true_ones_in_random_order(data):
    first = np.asarray(LabelReset(redraw="shuffle", **SIZES).first(jax.random.key(0), data))
    true = np.asarray(data.labels)
    np.testing.assert_array_equal(np.bincount(first), np.bincount(true))
    assert 0.7 < (first != true).mean() < 1
    kept = LabelReset(redraw="shuffle", first_true=True, **SIZES).first(jax.random.key(0), data)
    np.testing.assert_array_equal(kept, true)


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


def test_names_that_shift_by_one_return_after_as_many_tasks_as_classes(data):
    """Output adaptation: in task t class y is called (y + t) mod 10."""
    names = after_switches(ClassPermutation(rename="shift", **SIZES), data, switches=12)
    np.testing.assert_array_equal(names, (np.arange(10) + np.arange(13)[:, None]) % 10)


def test_a_share_of_a_shift_is_an_error():
    with pytest.raises(UserError, match=r"rename=shift all classes are renamed; share must be 1, got 0\.5"):
        ClassPermutation(rename="shift", share=0.5)


def test_a_new_permutation_every_so_many_examples_one_at_a_time(data):
    """Label-permuted streams: batches of 1, and a task shorter than the data shows no example twice."""
    task = ClassPermutation(steps=25, num_tasks=4, **SIZES | {"batch_size": 1})
    batch = jax.jit(task.batch)
    state, shown = task.init(jax.random.key(0), data), []
    for step in range(25):
        state, one = batch(state, jax.random.key(step), jnp.int32(step), jnp.int32(0), data)
        assert one.y.shape == (1,)
        shown.append(np.asarray(one.x).tobytes())
    assert len(set(shown)) == 25


def test_chance_is_the_largest_class(data):
    largest = np.bincount(np.asarray(data.labels)).max() / 200
    assert ClassPermutation().problem(data).chance == pytest.approx(largest)
    assert LabelReset().problem(data).chance == pytest.approx(0.1)
    assert LabelReset(redraw="shuffle").problem(data).chance == pytest.approx(largest)
