"""class_incremental, five_plus_one, binary_pairs: which classes are there, how many of each, and under what names."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from plasticity.errors import UserError
from tasks.base import tasks
from tasks.data.sets import Images

ClassIncremental, FivePlusOne, BinaryPairs = (
    tasks.get(name) for name in ("class_incremental", "five_plus_one", "binary_pairs")
)


def images(counts, held_out=0, seed=0) -> Images:
    """Grey images of one pixel, so many of each class in random order, and `held_out` of each class after them."""
    rng = np.random.default_rng(seed)
    classes = len(counts)
    labels = np.concatenate(
        [rng.permutation(np.repeat(np.arange(classes), counts)), np.tile(np.arange(classes), held_out)]
    )
    return Images.of(np.zeros((len(labels), 1, 1, 1), np.uint8), labels, classes, held_out * classes)


COUNTS = (7, 5, 9, 6, 5, 8, 10, 6, 7, 5)
SIZES = {"examples_used": sum(COUNTS), "batch_size": 2}


def contexts(task, data, tasks_run, seed=0):
    """The windows of so many tasks."""
    advance = jax.jit(task.following)
    found = [task.first(jax.random.key(seed), data)]
    for index in range(1, tasks_run):
        found.append(advance(found[-1], jax.random.fold_in(jax.random.key(seed + 1000), index), jnp.int32(index), data))
    return found


def classes_of(window, data) -> set[int]:
    """The classes of the training examples that are there."""
    return set(np.asarray(data.labels)[np.asarray(window.there)][: data.examples].tolist())


def numbers(window, data) -> np.ndarray:
    """How many training examples of each class are there."""
    there = np.asarray(window.there)[: data.examples]
    return np.bincount(np.asarray(data.labels)[: data.examples][there], minlength=data.classes)


def test_classes_join_in_the_order_drawn_and_none_goes():
    data = images(COUNTS)
    task = ClassIncremental(increment=2, num_tasks=5, **SIZES)
    windows = contexts(task, data, 5)
    order = np.asarray(windows[0].order)
    np.testing.assert_array_equal(np.sort(order), np.arange(10))
    for index, window in enumerate(windows):
        assert classes_of(window, data) == set(order[: 2 * (index + 1)].tolist())
        assert task.count(index, data) == 2 * (index + 1) * 5 == int(np.asarray(window.there).sum())


def test_the_first_examples_of_each_class_are_there_as_many_as_of_the_smallest():
    data = images(COUNTS)
    window = contexts(ClassIncremental(increment=5, num_tasks=2, **SIZES), data, 2)[1]
    labels = np.asarray(data.labels)
    expected = np.concatenate([np.flatnonzero(labels == c)[:5] for c in range(10)])
    np.testing.assert_array_equal(np.flatnonzero(window.there), np.sort(expected))


def test_fewer_examples_of_each_class_may_be_asked_for_and_not_more():
    data = images(COUNTS)
    few = ClassIncremental(increment=5, num_tasks=2, per_class=3, **SIZES)
    few.check(data)
    np.testing.assert_array_equal(numbers(contexts(few, data, 2)[1], data), np.full(10, 3))
    assert few.count(1, data) == 30
    with pytest.raises(
        UserError, match=r"every class needs 6 of the 68 training examples \(per_class=6\), class 1 has 5"
    ):
        ClassIncremental(increment=5, num_tasks=2, per_class=6, **SIZES).check(data)


def test_how_many_there_are_depends_on_no_key():
    data = images(COUNTS)
    for task in (ClassIncremental(**SIZES), FivePlusOne(num_tasks=5, **SIZES), BinaryPairs(num_tasks=5, **SIZES)):
        found = {tuple(int(np.asarray(w.there).sum()) for w in contexts(task, data, 5, seed)) for seed in range(3)}
        assert found == {tuple(int(task.count(index, data)) for index in range(5))}


@pytest.mark.parametrize("task", [ClassIncremental(**SIZES), FivePlusOne(**SIZES), BinaryPairs(**SIZES)])
def test_every_class_is_as_likely_at_every_place(task):
    data = images(COUNTS)
    found = np.asarray(
        jax.jit(jax.vmap(lambda key: task.first(key, data).order))(jax.random.split(jax.random.key(0), 2000))
    )
    table = np.stack([np.bincount(found[:, place], minlength=10) for place in range(10)])
    assert stats.chisquare(table.ravel(), ddof=2 * 9).pvalue > 1e-3


def test_many_and_few_classes_in_turn_and_none_twice():
    data = images(COUNTS)
    task = FivePlusOne(many=3, few=2, num_tasks=4, **SIZES)
    windows = contexts(task, data, 4)
    order = np.asarray(windows[0].order)
    seen = [classes_of(window, data) for window in windows]
    assert [len(classes) for classes in seen] == [3, 2, 3, 2]
    assert seen == [set(order[a:b].tolist()) for a, b in ((0, 3), (3, 5), (5, 8), (8, 10))]
    assert [int(task.count(index, data)) for index in range(4)] == [15, 10, 15, 10]


def test_the_published_five_plus_one_uses_96_classes_less_one():
    data = images((2,) * 100)
    task = FivePlusOne(many=5, few=1, num_tasks=31, examples_used=200, batch_size=2)
    task.check(data)
    assert task.window(30, data) == (90, 5)
    with pytest.raises(
        UserError, match="num_tasks=34 need 102 classes, fashion_mnist has 100; num_tasks may be at most 32"
    ):
        FivePlusOne(many=5, few=1, num_tasks=34, examples_used=200, batch_size=2).check(data)


def test_pairs_run_through_all_classes_and_then_through_another_order():
    data = images(COUNTS)
    windows = contexts(BinaryPairs(num_tasks=20, **SIZES), data, 20)
    pairs = [sorted(classes_of(window, data)) for window in windows]
    assert all(len(pair) == 2 for pair in pairs)
    for sweep in range(4):
        assert sorted(itertools.chain(*pairs[5 * sweep : 5 * sweep + 5])) == list(range(10))
    assert pairs[:5] != pairs[5:10]


def test_of_an_odd_number_of_classes_one_waits_for_the_next_order():
    data = images((3,) * 5)
    windows = contexts(BinaryPairs(num_tasks=6, examples_used=15, batch_size=2), data, 6)
    pairs = [classes_of(window, data) for window in windows]
    for sweep in range(3):
        assert len(pairs[2 * sweep] | pairs[2 * sweep + 1]) == 4


def test_the_first_of_a_pair_is_called_0_and_the_second_1():
    data = images(COUNTS)
    task = BinaryPairs(num_tasks=8, **SIZES)
    assert task.problem(data).classes == 2
    assert task.problem(data).chance == 0.5
    labels = np.asarray(data.labels)
    for index, window in enumerate(contexts(task, data, 8)):
        first, second = np.asarray(window.order)[2 * (index % 5) :][:2]
        y = np.asarray(task.examples(window, jnp.arange(data.examples), data).y)
        assert set(y[labels == first]) == {0}
        assert set(y[labels == second]) == {1}
        # Of those that have no weight: labels that exist.
        assert set(y) == {0, 1}


def test_labels_of_the_others_are_the_true_ones():
    data = images(COUNTS)
    for task in (ClassIncremental(**SIZES), FivePlusOne(**SIZES)):
        window = contexts(task, data, 2)[1]
        np.testing.assert_array_equal(task.examples(window, jnp.arange(68), data).y, data.labels)


def test_chance_is_one_in_as_many_classes_as_the_task_has():
    data = images(COUNTS)
    expected = {
        ClassIncremental(increment=2, num_tasks=3, **SIZES): ([1 / 2, 1 / 4, 1 / 6], 1 / 6),
        FivePlusOne(many=4, few=1, num_tasks=3, **SIZES): ([1 / 4, 1, 1 / 4], 1 / 4),
        BinaryPairs(num_tasks=3, **SIZES): ([1 / 2] * 3, 1 / 2),
    }
    for task, (by_task, stated) in expected.items():
        state = task.init(jax.random.key(0), data)
        found = [float(task.baselines(state, jnp.int32(index), data)["chance"]) for index in range(3)]
        assert found == pytest.approx(by_task)
        assert task.problem(data).chance == pytest.approx(stated)


def test_held_out_examples_count_where_their_class_is_there():
    data = images(COUNTS, held_out=2)
    task = FivePlusOne(many=3, few=1, num_tasks=4, held_out=20, **SIZES)
    task.check(data)
    state = task.advance(task.init(jax.random.key(0), data), jax.random.key(1), jnp.int32(1), data)
    shown = task.tested(state, jnp.int32(1), 100, data)
    (only,) = classes_of(state.current, data)
    np.testing.assert_array_equal(shown.weight, (np.asarray(data.labels)[68:] == only).astype(float))
    assert shown.weight.sum() == 2


def test_what_does_not_fit_is_said_before_it_runs():
    data = images(COUNTS)
    with pytest.raises(
        UserError, match=r"increment must divide the 10 classes of fashion_mnist, got 3; allowed: 1, 2, 5, 10"
    ):
        ClassIncremental(increment=3, num_tasks=2, **SIZES).check(data)
    with pytest.raises(
        UserError, match="num_tasks=6 need 12 classes, fashion_mnist has 10; num_tasks may be at most 5"
    ):
        ClassIncremental(increment=2, num_tasks=6, **SIZES).check(data)
    with pytest.raises(UserError, match=r"batch_size must be at most the examples of every task, got 6; task 1 has 5"):
        FivePlusOne(**SIZES | {"batch_size": 6}).check(data)
    lacking = Images.of(np.zeros((22, 1, 1, 1), np.uint8), np.array([0, 1] * 10 + [0, 0]), 2, held_out=2)
    with pytest.raises(UserError, match="held_out=2 must hold an example of every class, class 1 has none"):
        BinaryPairs(examples_used=20, batch_size=2, held_out=2).check(lacking)
    empty = Images.of(np.zeros((20, 1, 1, 1), np.uint8), np.array([0, 2] * 10), 3)
    with pytest.raises(UserError, match=r"every class needs 1 of the 20 training examples .* class 1 has 0"):
        BinaryPairs(examples_used=20, batch_size=2).check(empty)
