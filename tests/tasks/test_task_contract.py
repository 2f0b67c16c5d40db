"""One contract for every task stream: what the training loop may rely on, whichever member it is given.

A new file in tasks/streams is picked up here with no edit: each member as it is by default, and with each
choice of its fields.
"""

import dataclasses
import inspect
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.spec import build_one, to_text
from tasks.base import Task, tasks

SMALL = "steps=12, num_tasks=5, batch_size=20, examples_used=200, pool=4"


def _grid() -> list[str]:
    """Each member as it is, and each value of each of its choices."""
    found = []
    for name, cls in tasks.members().items():
        chosen = [
            f"{f.name}={choice}"
            for f in dataclasses.fields(cls)
            for choice in f.metadata.get("choices") or ()
            if choice != f.default
        ]
        found += [f"{name}({SMALL})"] + [f"{name}({SMALL}, {choice})" for choice in chosen]
    return found


@pytest.fixture(params=_grid(), ids=lambda spec: spec.replace(SMALL, "").replace("(, ", "(").replace("()", ""))
def task(request) -> Task:
    return build_one(request.param, tasks)


TRACES = Counter()


def _compiled(name, function):
    """Jitted with the task as an argument: one program serves all tests of a member, and traces are counted."""

    def counted(task, *args):
        TRACES[name] += 1
        return function(task, *args)

    return jax.jit(counted)


INIT = _compiled("init", lambda task, key, data: task.init(key, data))
ADVANCE = _compiled("advance", lambda task, state, key, index, data: task.advance(state, key, index, data))
BATCH = _compiled("batch", lambda task, state, key, step, index, data: task.batch(state, key, step, index, data))
PLAIN = [lambda task, *a, name=name: getattr(task, name)(*a) for name in ("init", "advance", "batch")]
BATCHES = _compiled(
    "batches",
    lambda task, state, keys, step, data: jax.vmap(task.batch, (None, 0, None, None, None))(
        state, keys, step, jnp.int32(1), data
    )[1],
)


def same(a, b, tolerance=0.0):
    """Equal trees; `tolerance` covers the order of additions where two programs differ."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        if jnp.issubdtype(x.dtype, jnp.integer):
            np.testing.assert_array_equal(x, y)
        else:
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def differs(a, b) -> bool:
    return any(bool(jnp.any(x != y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@jax.jit
def contexts(task, key, data):
    """The contexts of the five tasks, stacked."""
    first = task.init(jax.random.fold_in(key, 0), data)

    def switch(state, index):
        state = task.advance(state, jax.random.fold_in(key, index), index, data)
        return state, state.current

    _, rest = jax.lax.scan(switch, first, jnp.arange(1, 5))
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first.current, rest)


def test_member_is_documented_and_prints_what_it_reads(task):
    for text in (inspect.cleandoc(type(task).__doc__ or ""), task.reference, task.score_label):
        assert text
    assert all(f.metadata["help"] for f in dataclasses.fields(task))
    assert build_one(to_text(task), tasks) == task


def test_small_data_fit_every_member(task, data):
    task.check(data)


def test_problem_is_stated_and_examples_keep_to_it(task, data):
    problem = task.problem(data)
    assert problem.kind == task.kind
    low, high = problem.target_range
    for seed in range(5):
        states = contexts(task, jax.random.key(seed), data)
        y = jax.vmap(lambda c: task.examples(c, jnp.arange(200), data).y)(states)
        if task.kind == "classification":
            assert y.dtype == jnp.int32
            assert y.min() >= 0
            assert y.max() < problem.classes
            assert 0 < problem.chance < 1
        else:
            assert y.dtype == jnp.float32
            assert y.min() >= low
            assert y.max() <= high
            assert problem.chance == 0


def test_target_range_may_be_traced(task, data):
    plain = task.problem(data).target_range
    traced = jax.jit(lambda t: jnp.stack([jnp.asarray(v, jnp.float32) for v in t.problem(data).target_range]))(task)
    np.testing.assert_allclose(traced, plain, rtol=1e-6)
    assert all(isinstance(v, float) for v in plain), "a plain config must state plain numbers"


def test_deterministic_in_the_key_and_different_for_another(task, data):
    one, again, other = (contexts(task, jax.random.key(seed), data) for seed in (0, 0, 1))
    same(one, again)
    assert differs(one, other)


def test_jit_equals_eager(task, data):
    key = jax.random.key(0)
    state = INIT(task, key, data)
    with jax.disable_jit():
        first, advanced = task.init(key, data), task.advance(state, key, jnp.int32(1), data)
    same(state, first, 1e-4)
    same(ADVANCE(task, state, key, jnp.int32(1), data), advanced, 1e-4)


def test_vmap_over_seeds_and_strengths_equals_a_loop(task, data):
    """Nested as in a sweep: keys outside, strengths inside, every traced field at its default and at another value."""
    traced = [f.name for f in dataclasses.fields(task) if not f.metadata["static"]]
    configs = (task, dataclasses.replace(task, **dict.fromkeys(traced, 0.5)))
    keys = jax.random.split(jax.random.key(3), 3)

    def one(key, task, compiled=False):
        init, advance, batch = (INIT, ADVANCE, BATCH) if compiled else PLAIN
        state = advance(task, init(task, key, data), jax.random.fold_in(key, 1), jnp.int32(1), data)
        return batch(task, state, jax.random.fold_in(key, 2), jnp.int32(3), jnp.int32(1), data)

    inner = jax.vmap(one, (None, 0))
    together = jax.jit(jax.vmap(inner, (0, None)))(keys, jax.tree.map(lambda *leaves: jnp.array(leaves), *configs))
    for i, key in enumerate(keys):
        for j, config in enumerate(configs):
            same(jax.tree.map(lambda leaf, at=(i, j): leaf[at], together), one(key, config, compiled=True), 1e-4)


def test_no_recompilation_across_tasks_steps_and_strengths(task, data):
    state = INIT(task, jax.random.key(0), data)
    state = ADVANCE(task, state, jax.random.key(1), jnp.int32(1), data)
    state, _ = BATCH(task, state, jax.random.key(1), jnp.int32(0), jnp.int32(1), data)
    before = dict(TRACES)
    for index in range(2, 5):
        config = dataclasses.replace(task, transition=0.2 * index)
        state = ADVANCE(config, state, jax.random.key(index), jnp.int32(index), data)
        for step in range(2):
            state, _ = BATCH(config, state, jax.random.key(step), jnp.int32(step), jnp.int32(index), data)
    assert before == TRACES


def epochs(task, data, number_of):
    """The examples shown in each of two epochs, after checking each batch."""
    state = INIT(task, jax.random.key(0), data)
    y = task.evaluation(state, jnp.int32(0), 200, data).y
    per_epoch, seen = 200 // task.batch_size, []
    for step in range(2 * per_epoch):
        state, shown = BATCH(
            task, state, jax.random.fold_in(jax.random.key(1), step), jnp.int32(step), jnp.int32(0), data
        )
        assert shown.x.dtype == jnp.float32
        assert shown.x.shape == (task.batch_size, 7, 7, 1)
        seen.append(number_of(shown.x))
        np.testing.assert_array_equal(shown.y, y[seen[-1]])
    return np.concatenate(seen[:per_epoch]), np.concatenate(seen[per_epoch:])


def test_an_epoch_shows_each_example_exactly_once_in_a_new_order(task, numbered, number_of):
    first, second = epochs(task, numbered, number_of)
    np.testing.assert_array_equal(np.sort(first), np.arange(200))
    np.testing.assert_array_equal(np.sort(second), np.arange(200))
    assert not np.array_equal(first, second)


def test_an_epoch_of_a_batch_size_that_does_not_divide_repeats_no_example(numbered, number_of):
    """Batches of 30 out of 200: each epoch leaves out the last 20 of its order, other ones each time."""
    task = build_one(f"label_reset({SMALL})".replace("batch_size=20", "batch_size=30"), tasks)
    first, second = epochs(task, numbered, number_of)
    assert len(first) == len(set(first)) == len(second) == len(set(second)) == 180
    assert set(first) != set(second)


def test_evaluation_is_all_examples_under_the_current_context(task, numbered, number_of):
    state = switched(task, numbered)
    shown = task.evaluation(state, jnp.int32(1), 200, numbered)
    np.testing.assert_array_equal(number_of(shown.x), np.arange(200))
    same(shown, task.examples(state.current, jnp.arange(200), numbered))


def test_a_switch_keeps_the_old_context_as_previous(task, data):
    before = switched(task, data)
    after = ADVANCE(task, before, jax.random.key(2), jnp.int32(2), data)
    same(after.previous, before.current)


def switched(task, data):
    """A state whose two contexts differ, whichever task that takes."""
    state = INIT(task, jax.random.key(0), data)
    for index in range(1, 20):
        state = ADVANCE(task, state, jax.random.fold_in(jax.random.key(1), index), jnp.int32(index), data)
        if differs(state.previous, state.current):
            return state
    raise AssertionError("the contexts never differ")


def mixed(task, state, step, data, number_of):
    """The labels of 20 batches at `step`, and what they are under the old and under the new context."""
    keys = jax.random.split(jax.random.key(5), 20)
    shown = BATCHES(task, state, keys, jnp.int32(step), data)
    numbers = jnp.asarray(number_of(shown.x).ravel())
    old, new = (np.asarray(task.examples(c, numbers, data).y) for c in (state.previous, state.current))
    return np.asarray(shown.y).ravel(), old, new


def test_no_transition_is_an_abrupt_switch(task, numbered, number_of):
    state = switched(task, numbered)
    for step in (0, 1, 11):
        y, old, new = mixed(task, state, step, numbered, number_of)
        np.testing.assert_array_equal(y, new)
        assert (y != old).any()


def test_a_transition_of_one_mixes_linearly(task, numbered, number_of):
    """The share of the new context at `step` of 12 is step / 12: exactly in targets, in expectation in classes."""
    task = dataclasses.replace(task, transition=1.0)
    state = switched(task, numbered)
    for step in (0, 3, 6, 11):
        y, old, new = mixed(task, state, step, numbered, number_of)
        share = step / 12
        if task.kind == "regression":
            np.testing.assert_allclose(y, (1 - share) * old + share * new, rtol=1e-5, atol=1e-5)
            continue
        assert np.all((y == old) | (y == new))
        told_apart = old != new
        assert told_apart.sum() > 300
        found = (y == new)[told_apart].mean()
        assert abs(found - share) <= 4 * (share * (1 - share) / told_apart.sum()) ** 0.5


def test_a_transition_ends_where_it_says(task, numbered, number_of):
    """transition = 0.5 of 12 steps: from update 6 on only the new context."""
    task = dataclasses.replace(task, transition=0.5)
    state = switched(task, numbered)
    for step, done in ((5, False), (6, True)):
        y, _, new = mixed(task, state, step, numbered, number_of)
        assert np.array_equal(y, new) == done
