"""input_permutation: which pixels move, where from, and that nothing else changes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from plasticity.errors import UserError
from tasks.base import tasks
from tasks.data.sets import Images
from tasks.streams._pixels import arranged

InputPermutation = tasks.get("input_permutation")
SIZES = {"examples_used": 6, "batch_size": 2}


@pytest.fixture(scope="module")
def colour() -> Images:
    """Six images of 3 x 4 in three channels, and two held out, in which every value of an image is another."""
    values = np.arange(8 * 36, dtype=np.int64).reshape(8, 3, 4, 3) % 36 * 7
    return Images.of(values.astype(np.uint8), np.arange(8) % 2, 2, held_out=2)


@jax.jit
def _orders(task, key, data):
    def switch(context, index):
        context = task.following(context, jax.random.fold_in(key, index), index, data)
        return context, context.order

    first = task.first(key, data)
    return first.order, jax.lax.scan(switch, first, jnp.arange(1, 31))[1]


def orders(task, data, seed=0):
    """The orders of 31 tasks."""
    first, rest = _orders(task, jax.random.key(seed), data)
    found = np.concatenate([np.asarray(first)[None], np.asarray(rest)])
    np.testing.assert_array_equal(np.sort(found, axis=1), np.tile(np.arange(found.shape[1]), (31, 1)))
    return found


def test_an_order_says_which_value_comes_to_each_place_by_hand():
    x = jnp.arange(8.0).reshape(1, 2, 2, 2)
    full = arranged("full", x, jnp.array([7, 0, 1, 2, 3, 4, 5, 6]))
    np.testing.assert_array_equal(full.ravel(), [7, 0, 1, 2, 3, 4, 5, 6])
    spatial = arranged("spatial", x, jnp.array([1, 0, 3, 2]))
    np.testing.assert_array_equal(spatial.ravel(), [2, 3, 0, 1, 6, 7, 4, 5])
    rows = arranged("rows", x, jnp.array([1, 0]))
    np.testing.assert_array_equal(rows.ravel(), [4, 5, 6, 7, 0, 1, 2, 3])


@pytest.mark.parametrize("what", ["full", "spatial", "rows"])
def test_images_are_those_of_an_order_applied_in_numpy(what, colour):
    task = InputPermutation(what=what, **SIZES)
    context = task.following(task.first(jax.random.key(0), colour), jax.random.key(1), jnp.int32(1), colour)
    order = np.asarray(context.order)
    indices = jnp.array([3, 0, 7])
    plain = np.asarray(colour.inputs(indices))
    expected = {
        "full": lambda x: x.reshape(3, 36)[:, order].reshape(3, 3, 4, 3),
        "spatial": lambda x: np.stack([x[..., c].reshape(3, 12)[:, order].reshape(3, 3, 4) for c in range(3)], -1),
        "rows": lambda x: x[:, order],
    }[what](plain)
    batch = task.examples(context, indices, colour)
    np.testing.assert_array_equal(batch.x, expected)
    assert np.any(batch.x != plain)
    np.testing.assert_array_equal(batch.y, np.asarray(colour.labels)[np.asarray(indices)])


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.01, 2), (0.25, 9), (0.5, 18), (1.0, 36)])
def test_a_switch_moves_exactly_the_share_of_the_values(share, count, colour):
    found = orders(InputPermutation(share=share, **SIZES), colour)
    np.testing.assert_array_equal(found[0], np.arange(36))
    np.testing.assert_array_equal((found[1:] != found[:-1]).sum(1), count)


def test_relative_to_the_original_every_task_has_the_share_out_of_place(colour):
    found = orders(InputPermutation(share=0.25, relative="original", **SIZES), colour)
    np.testing.assert_array_equal((found[1:] != np.arange(36)).sum(1), 9)
    assert (found[1:] != found[:-1]).sum(1).max() > 9


def test_relative_to_the_current_order_small_shares_add_up(colour):
    found = orders(InputPermutation(share=0.25, **SIZES), colour)
    assert (found[-1] != np.arange(36)).sum() > 27


def test_every_place_is_as_likely_to_move_to_any_other(colour):
    found = np.concatenate([orders(InputPermutation(share=0.25, **SIZES), colour, seed) for seed in range(20)])
    found = found.reshape(20, 31, 36)
    moved = (found[:, 1:] != found[:, :-1]).sum((0, 1))
    assert stats.chisquare(moved).pvalue > 1e-3
    original = np.concatenate(
        [orders(InputPermutation(relative="original", **SIZES), colour, s)[1:] for s in range(20)]
    )
    shift = (original - np.arange(36)) % 36
    assert stats.chisquare(np.bincount(shift.ravel(), minlength=36)[1:]).pvalue > 1e-3


@pytest.mark.parametrize("first_permuted", [False, True])
def test_the_orders_of_a_bank_return_in_turn(first_permuted, colour):
    task = InputPermutation(share=0.5, bank=4, relative="original", first_permuted=first_permuted, **SIZES)
    found = orders(task, colour)
    np.testing.assert_array_equal(found, found[np.arange(31) % 4])
    assert len(np.unique(found[:4], axis=0)) == 4
    out_of_place = (found[:4] != np.arange(36)).sum(1)
    np.testing.assert_array_equal(out_of_place, [18 if first_permuted else 0, 18, 18, 18])
    assert np.any(found != orders(task, colour, seed=1))


def test_the_first_order_is_that_of_the_data_unless_asked(colour):
    assert np.any(orders(InputPermutation(first_permuted=True, **SIZES), colour)[0] != np.arange(36))
    small = InputPermutation(first_permuted=True, relative="original", share=0.25, **SIZES)
    assert (orders(small, colour)[0] != np.arange(36)).sum() == 9


def test_held_out_images_are_permuted_alike(colour):
    task = InputPermutation(held_out=2, **SIZES)
    state = task.advance(task.init(jax.random.key(0), colour), jax.random.key(1), jnp.int32(1), colour)
    shown = task.tested(state, jnp.int32(1), 10, colour)
    plain = np.asarray(colour.inputs(jnp.array([6, 7])))
    np.testing.assert_array_equal(
        np.asarray(shown.x).reshape(2, 36), plain.reshape(2, 36)[:, np.asarray(state.current.order)]
    )


def test_a_bank_has_a_fixed_start():
    with pytest.raises(UserError, match="bank=3 needs relative=original, got relative=current"):
        InputPermutation(bank=3)
    with pytest.raises(UserError, match="Did you mean 'spatial'"):
        InputPermutation(what="spatal")


def test_no_image_is_copied(colour):
    """The state of a run grows with the pixels of an image and the number of examples, not with their product."""
    many = dataclasses.replace(
        colour, images=jnp.zeros((60, 3, 4, 3), jnp.uint8), labels=jnp.zeros(60, jnp.int32), held_out=0
    )
    state = InputPermutation(**SIZES).init(jax.random.key(0), many)
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 60 + 2 * 36
