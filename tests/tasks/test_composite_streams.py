"""composite and composite_growing: inputs, labels and targets that change at one switch, each as it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tasks.base import tasks

Composite, Growing = tasks.get("composite"), tasks.get("composite_growing")
SIZES = {"examples_used": 200, "batch_size": 20, "pool": 4}


@jax.jit
def _contexts(task, key, data):
    def switch(context, index):
        context = task.following(context, jax.random.fold_in(key, index), index, data)
        return context, context

    first = task.first(key, data)
    _, rest = jax.lax.scan(switch, first, jnp.arange(1, 8))
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)


def contexts(task, data, seed=0):
    """The contexts of eight tasks, stacked."""
    return jax.tree.map(np.asarray, _contexts(task, jax.random.key(seed), data))


@pytest.mark.parametrize(("eps", "share"), [(0.0, 0.0), (0.3, 0.5), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0)])
def test_labels_and_pixels_change_by_their_own_shares(eps, share, data):
    found = contexts(Composite(eps=eps, share=share, **SIZES), data)
    moved = (found.order[1:] != found.order[:-1]).sum(1)
    np.testing.assert_array_equal(moved, round(share * 49))
    changed = (found.labels[1:] != found.labels[:-1]).sum()
    if eps:
        assert stats.binomtest(int(changed), round(7 * 200 * eps), 0.9).pvalue > 1e-3
    else:
        assert changed == 0


def test_continual_leaves_the_inputs_and_changes_the_labels_as_the_composite_does(data):
    continual, composite = (contexts(Composite(mode=mode, **SIZES), data) for mode in ("continual", "composite"))
    np.testing.assert_array_equal(continual.order, np.tile(np.arange(49), (8, 1)))
    np.testing.assert_array_equal(continual.labels, composite.labels)
    assert np.any(composite.order[1] != np.arange(49))


def test_examples_are_permuted_images_under_the_labels(data):
    task = Composite(**SIZES)
    context = jax.tree.map(lambda leaf: jnp.asarray(leaf[3]), contexts(task, data))
    batch = task.examples(context, jnp.arange(200), data)
    plain = np.asarray(data.inputs(jnp.arange(200))).reshape(200, 49)
    np.testing.assert_array_equal(np.asarray(batch.x).reshape(200, 49), plain[:, np.asarray(context.order)])
    np.testing.assert_array_equal(batch.y, context.labels)


def test_labels_are_uniform_and_owe_nothing_to_the_true_ones(data):
    labels = contexts(Composite(**SIZES), data).labels
    assert stats.chisquare(np.bincount(labels.ravel(), minlength=10)).pvalue > 1e-3
    table = stats.contingency.crosstab(np.tile(np.asarray(data.labels), 8), labels.ravel()).count
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_growing_targets_by_hand(data):
    """Labels 0 to 9 are -1 to 1 in steps of 2/9; in task 3 stretched by 1 + 3 * 0.5, and shifted by 3 * 2."""
    task = Growing(offset=2.0, scale=0.5, **SIZES)
    found = contexts(task, data)
    context = jax.tree.map(lambda leaf: jnp.asarray(leaf[3]), found)
    y = np.asarray(task.examples(context, jnp.arange(200), data).y)
    expected = 6 + 2.5 * np.linspace(-1, 1, 10)[found.labels[3]]
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    assert y.min() == pytest.approx(3.5)
    assert y.max() == pytest.approx(8.5)


@pytest.mark.parametrize(
    ("fields", "low", "high"),
    [
        ({"offset": 2.0, "scale": 0.5, "num_tasks": 4}, -1.0, 8.5),
        # The last task reaches from 2 - 5 to 2 + 5.
        ({"offset": 1.0, "scale": 2.0, "num_tasks": 3}, -3.0, 7.0),
        ({"offset": 0.0, "scale": 0.0}, -1.0, 1.0),
        ({"offset": 5.0, "num_tasks": 1}, -1.0, 1.0),
    ],
)
def test_the_range_of_growing_targets_by_hand_and_it_is_reached(fields, low, high, data):
    task = Growing(**fields, **SIZES)
    assert task.problem(data).target_range == pytest.approx((low, high))
    found = contexts(task, data)
    y = []
    for index in range(min(task.num_tasks, 8)):
        context = jax.tree.map(lambda leaf, index=index: jnp.asarray(leaf[index]), found)
        y.append(task.examples(context, jnp.arange(200), data).y)
    assert np.min(y) == pytest.approx(low)
    assert np.max(y) == pytest.approx(high)


def test_examples_of_growing_targets_are_old_or_new_and_not_between(data):
    """Half-way through a transition each has its old image and old target, or both new."""
    task = Growing(offset=100.0, transition=1.0, steps=2, **SIZES)
    state = task.advance(task.init(jax.random.key(0), data), jax.random.key(1), jnp.int32(1), data)
    _, batch = jax.jit(task.batch)(state, jax.random.key(2), jnp.int32(1), jnp.int32(1), data)
    x = np.asarray(batch.x).reshape(20, 49)
    plain = np.asarray(data.inputs(jnp.arange(200))).reshape(200, 49)
    is_new = np.asarray(batch.y) > 50
    assert 3 < is_new.sum() < 17
    for image, new in zip(x, is_new, strict=True):
        pool = plain[:, np.asarray(state.current.order)] if new else plain
        assert (np.abs(pool - image).max(1) < 1e-6).any()
