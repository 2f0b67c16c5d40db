"""What holds for every stream on a fixed set of images, by default and with each choice of its fields.

Images whose every pixel is the number of the example tell which examples a batch shows.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_tasks import HELD_OUT, TASKS, grid
from test_task_contract import ADVANCE, BATCH, INIT, same

from plasticity.errors import UserError
from plasticity.spec import build_one
from tasks.base import tasks
from tasks.data.sets import Images
from tasks.examples import ExampleTask

GRID = grid(ExampleTask)
MEMBERS = {name: cls for name, cls in tasks.members().items() if issubclass(cls, ExampleTask)}


@pytest.fixture(params=GRID.values(), ids=GRID.keys())
def task(request) -> ExampleTask:
    return build_one(request.param, tasks)


def with_the_common(method: str):
    """Parametrises with the members that have a method as `ExampleTask` has it."""
    built = {key: build_one(text, tasks) for key, text in GRID.items()}
    found = {key: task for key, task in built.items() if getattr(type(task), method) is getattr(ExampleTask, method)}
    return pytest.mark.parametrize("task", found.values(), ids=found.keys())


@pytest.fixture
def numbered(task):
    return numbers(task.load())


def numbers(data: Images) -> Images:
    """Every pixel the number of the example. Labels and shape stay: one compiled program serves both."""
    grey = np.arange(len(data.labels), dtype=np.uint8)
    images = np.broadcast_to(grey[:, None, None, None], data.images.shape)
    return Images.of(images, np.asarray(data.labels), data.classes, data.held_out)


def number_of(x, data: Images) -> np.ndarray:
    return np.rint((np.asarray(x)[..., 0, 0, 0] * data.std[0] + data.mean[0]) * 255).astype(int)


def at(task, data, index: int):
    """The state at the start of task `index`."""
    state = INIT(task, jax.random.key(0), data)
    for i in range(1, index + 1):
        state = ADVANCE(task, state, jax.random.fold_in(jax.random.key(1), i), jnp.int32(i), data)
    return state


def active(task, state, index: int, data) -> np.ndarray:
    """Which examples are in the task."""
    mask = task.active(state.current, jnp.int32(index), data)
    return np.ones(data.examples, bool) if mask is None else np.asarray(mask)[: data.examples]


EVERY = pytest.mark.parametrize("index", [0, 1, TASKS - 1])


@EVERY
def test_the_count_is_the_number_of_active_examples(task, numbered, index):
    assert active(task, at(task, numbered, index), index, numbered).sum() == int(task.count(index, numbered))


@EVERY
@with_the_common("batch")
def test_an_epoch_shows_each_active_example_exactly_once_in_a_new_order(task, numbered, index):
    state = at(task, numbered, index)
    there = np.flatnonzero(active(task, state, index, numbered))
    per_epoch, seen = len(there) // task.batch_size, []
    for step in range(2 * per_epoch):
        key = jax.random.fold_in(jax.random.key(1), step)
        state, shown = BATCH(task, state, key, jnp.int32(step), jnp.int32(index), numbered)
        seen.append(number_of(shown.x, numbered))
        same(shown, task.examples(state.current, jnp.asarray(seen[-1]), numbered), 1e-6)
    epochs = np.concatenate(seen).reshape(2, -1)
    for epoch in epochs:
        assert set(epoch) <= set(there)
        assert len(set(epoch)) == len(epoch) == per_epoch * task.batch_size
    assert not np.array_equal(*epochs)


@EVERY
@with_the_common("evaluation")
def test_evaluation_has_exactly_the_active_examples_by_weight(task, numbered, index):
    state = at(task, numbered, index)
    shown = task.evaluation(state, jnp.int32(index), 4096, numbered)
    assert len(shown.x) == numbered.examples
    weight = np.ones(numbered.examples) if shown.weight is None else np.asarray(shown.weight)
    assert set(weight) <= {0.0, 1.0}
    counted = number_of(shown.x, numbered)[weight > 0]
    np.testing.assert_array_equal(np.sort(counted), np.flatnonzero(active(task, state, index, numbered)))
    same(shown._replace(weight=None), task.examples(state.current, number_of(shown.x, numbered), numbered))


@EVERY
def test_other_batches_are_of_active_examples(task, numbered, index):
    state = at(task, numbered, index)
    there = set(np.flatnonzero(active(task, state, index, numbered)))
    some = task.some(state, jax.random.key(3), jnp.int32(index), numbered)
    fixed = task.fixed(state, jnp.int32(index), 64, numbered)
    for batch in (some, fixed):
        assert set(number_of(batch.x, numbered)) <= there
    same(fixed, task.fixed(state, jnp.int32(index), 64, numbered))


@EVERY
def test_held_out_examples_are_tested_and_never_trained_on(task, numbered, index):
    state = at(task, numbered, index)
    shown = task.tested(state, jnp.int32(index), 4096, numbered)
    if not task.generalizes:
        assert shown is None
        with pytest.raises(UserError, match=r"held_out must be 0, got 5"):
            dataclasses.replace(task, held_out=5)
        return
    np.testing.assert_array_equal(number_of(shown.x, numbered), numbered.examples + np.arange(HELD_OUT))
    mask = task.active(state.current, jnp.int32(index), numbered)
    assert (shown.weight is None) == (mask is None)
    if mask is not None:
        np.testing.assert_array_equal(shown.weight, np.asarray(mask)[numbered.examples :])
        assert np.any(shown.weight)
    same(shown._replace(weight=None), task.examples(state.current, numbered.examples + jnp.arange(HELD_OUT), numbered))


@pytest.mark.parametrize("name", MEMBERS)
def test_the_data_must_be_those_of_the_config(name):
    task = build_one(GRID[name], tasks)
    data = task.load()
    task.check(data)
    with pytest.raises(UserError, match=f"{name}: examples_used is 200, the data have 199 examples"):
        task.check(dataclasses.replace(data, held_out=data.held_out + 1))


#: Examples of the training part, and classes.
SETS = {
    "mnist": (60_000, 10),
    "fashion_mnist": (10_000, 10),
    "cifar10": (50_000, 10),
    "cifar100": (50_000, 100),
    "imagenet32.npz": (600_000, 1000),
}


def stand_in(task) -> Images:
    """Balanced data of the size that a config names, small and blank."""
    examples, classes = SETS[task.data]
    labels = np.tile(np.arange(classes), examples // classes)[: task.examples_used]
    labels = np.concatenate([labels, np.tile(np.arange(classes), task.held_out // classes)])
    return Images.of(np.zeros((len(labels), 5, 5, 1), np.uint8), labels, classes, task.held_out)


@pytest.mark.parametrize("cls", MEMBERS.values(), ids=MEMBERS)
def test_published_protocols_fit_the_data_they_name(cls):
    for text in cls.protocols.values():
        task = build_one(text, tasks)
        assert task.examples_used <= SETS[task.data][0]
        task.check(stand_in(task))


def test_an_epoch_of_a_batch_size_that_does_not_divide_repeats_no_example():
    """Batches of 30 out of 200: each epoch leaves out the last 20 of its order, other ones each time."""
    task = dataclasses.replace(build_one(GRID["label_reset"], tasks), batch_size=30)
    data = numbers(task.load())
    state, seen = at(task, data, 0), []
    for step in range(12):
        state, shown = BATCH(task, state, jax.random.key(step), jnp.int32(step), jnp.int32(0), data)
        seen.append(number_of(shown.x, data))
    first, second = np.concatenate(seen[:6]), np.concatenate(seen[6:])
    assert len(first) == len(set(first)) == len(second) == len(set(second)) == 180
    assert set(first) != set(second)
