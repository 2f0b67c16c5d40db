"""warm_start and noisy_chunks: which examples are there, and how many of their labels are wrong."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from plasticity.errors import UserError
from tasks.base import tasks

WarmStart, NoisyChunks = tasks.get("warm_start"), tasks.get("noisy_chunks")
SIZES = {"examples_used": 200, "batch_size": 10, "pool": 4}


def contexts(task, data, seed=0):
    """The contexts of all tasks."""
    advance = jax.jit(task.following)
    found = [task.first(jax.random.key(seed), data)]
    for index in range(1, task.num_tasks):
        found.append(advance(found[-1], jax.random.fold_in(jax.random.key(seed + 1000), index), jnp.int32(index), data))
    return found


def there(task, context, index, data) -> np.ndarray:
    return np.asarray(task.active(context, jnp.int32(index), data))[: data.examples]


def wrong(context, data) -> np.ndarray:
    return np.asarray(context.labels != data.labels)


# warm_start -----------------------------------------------------------------------------------------------------------


def test_half_the_examples_first_and_then_all_of_them_by_default(data):
    task = WarmStart(**SIZES)
    start, rest = (there(task, context, index, data) for index, context in enumerate(contexts(task, data)))
    assert (start.sum(), rest.sum()) == (100, 200) == (task.count(0, data), task.count(1, data))


@pytest.mark.parametrize(
    ("share", "num_tasks", "counts"),
    [
        (0.1, 2, [20, 200]),
        (0.1, 4, [20, 80, 140, 200]),
        (0.2, 5, [40, 80, 120, 160, 200]),
        (0.3, 1, [60]),
        (1.0, 2, [200, 200]),
    ],
)
def test_examples_join_in_equal_steps_and_stay(share, num_tasks, counts, data):
    task = WarmStart(share=share, num_tasks=num_tasks, **SIZES)
    masks = [there(task, context, index, data) for index, context in enumerate(contexts(task, data))]
    assert [mask.sum() for mask in masks] == counts == [int(task.count(jnp.int32(i), data)) for i in range(num_tasks)]
    for before, after in itertools.pairwise(masks):
        assert not np.any(before & ~after)


def test_the_first_examples_are_drawn_from_the_key(data):
    task = WarmStart(share=0.3, **SIZES)
    masks = jax.vmap(lambda key: task.active(task.first(key, data), jnp.int32(0), data))(
        jax.random.split(jax.random.key(0), 500)
    )
    # Of 500 draws of 60 from 200, without replacement: the counts of examples vary 0.7 times as much as if with.
    found = np.asarray(masks).sum(0)
    assert stats.chi2(199).sf(((found - 150) ** 2 / 150 / 0.7).sum()) > 1e-3


@pytest.mark.parametrize("noise", [0.0, 0.25, 1.0])
def test_exactly_the_share_of_the_first_labels_is_wrong_and_none_after(noise, data):
    task = WarmStart(share=0.4, noise=noise, num_tasks=3, **SIZES)
    found = contexts(task, data)
    assert wrong(found[0], data).sum() == 80 * noise
    assert not np.any(wrong(found[0], data) & ~there(task, found[0], 0, data))
    assert not any(wrong(context, data).any() for context in found[1:])


def test_a_wrong_label_is_any_other_class_and_any_example_alike(data):
    task = WarmStart(share=1.0, noise=0.5, **SIZES)
    found = np.asarray(
        jax.jit(jax.vmap(lambda key: task.first(key, data).labels))(jax.random.split(jax.random.key(0), 500))
    )
    step = (found - np.asarray(data.labels)) % 10
    assert stats.chisquare(np.bincount(step.ravel(), minlength=10)[1:]).pvalue > 1e-3
    # Half of them in each draw: half as variable as with replacement.
    often = (step > 0).sum(0)
    assert stats.chi2(199).sf(((often - 250) ** 2 / 250 / 0.5).sum()) > 1e-3


def test_the_start_is_another_with_noise_but_of_the_same_examples(data):
    clean, noisy = (WarmStart(share=0.4, noise=noise, **SIZES).first(jax.random.key(0), data) for noise in (0.0, 0.5))
    np.testing.assert_array_equal(clean.rank, noisy.rank)


# noisy_chunks ---------------------------------------------------------------------------------------------------------


def test_the_published_noise_by_hand(data):
    """Ten chunks of 20, of whose labels 10 8 8 6 6 4 4 2 2 0 are wrong."""
    task = NoisyChunks(**SIZES)
    found = contexts(task, data)
    masks = [there(task, context, index, data) for index, context in enumerate(found)]
    np.testing.assert_array_equal(np.sum(masks, axis=0), 1)
    assert [mask.sum() for mask in masks] == [20] * 10
    assert [int(wrong(context, data).sum()) for context in found] == [10, 8, 8, 6, 6, 4, 4, 2, 2, 0]
    for context, mask in zip(found, masks, strict=True):
        assert not np.any(wrong(context, data) & ~mask)


def test_chunks_that_are_kept_are_all_noisy_anew(data):
    """30, then 60 examples and so on, with the share of the task, on whichever of them."""
    task = NoisyChunks(num_tasks=5, cumulative=True, noise="0.5 .2 0", **SIZES)
    found = contexts(task, data)
    masks = [there(task, context, index, data) for index, context in enumerate(found)]
    assert [mask.sum() for mask in masks] == [40, 80, 120, 160, 200]
    assert [int(wrong(context, data).sum()) for context in found] == [20, 16, 0, 0, 0]
    assert np.any(wrong(found[1], data) & masks[0])
    assert np.any(wrong(found[0], data) & ~wrong(found[1], data))


def test_chunks_that_do_not_divide_cover_every_example_once(data):
    task = NoisyChunks(num_tasks=7, noise="0", **SIZES)
    masks = [there(task, context, index, data) for index, context in enumerate(contexts(task, data))]
    np.testing.assert_array_equal(np.sum(masks, axis=0), 1)
    assert {mask.sum() for mask in masks} == {28, 29}


@pytest.mark.parametrize("noise", ["", "half", ".5 1.5", "-.1", "nan"])
def test_noise_that_is_no_list_of_shares_is_an_error(noise):
    with pytest.raises(UserError, match="must be numbers from 0 to 1 with spaces between"):
        NoisyChunks(noise=noise)


def test_held_out_labels_are_true():
    task = NoisyChunks(noise="1", held_out=50, **SIZES)
    data = task.load()
    context = task.first(jax.random.key(0), data)
    assert not wrong(context, data)[200:].any()
    np.testing.assert_array_equal(task.active(context, jnp.int32(0), data)[200:], True)


def test_chance_is_the_largest_class(data):
    for task in (WarmStart(**SIZES), NoisyChunks(**SIZES)):
        assert task.problem(data).chance == pytest.approx(max(data.counts) / 200)
