"""One contract for every task stream: what the training loop may rely on, whichever member it is given.

A new file in tasks/streams is picked up here with no edit: each member as it is by default, and with each choice of its
fields. What holds for streams on a fixed set of images alone is in test_example_streams.
"""

import contextlib
import dataclasses
import inspect
import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_tasks import TASKS, grid

from plasticity.errors import UserError
from plasticity.spec import build_one, to_text
from tasks.base import Task, Transition, tasks


@pytest.fixture(params=grid().values(), ids=grid().keys())
def task(request) -> Task:
    return build_one(request.param, tasks)


@pytest.fixture
def data(task):
    return task.load()


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


def same(a, b, tolerance=0.0):
    """Equal trees; `tolerance` covers the order of additions where two programs differ."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        if jnp.issubdtype(x.dtype, jnp.floating):
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(x, y)


def differs(a, b) -> bool:
    return any(bool(jnp.any(x != y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def through(task, key, data):
    """Of each task in turn: the state after one update, its batch, a random batch, and what judges it, if anything."""
    state = INIT(task, jax.random.fold_in(key, 0), data)
    for number in range(TASKS):
        index = jnp.int32(number)
        if number:
            state = ADVANCE(task, state, jax.random.fold_in(key, number), index, data)
        state, batch = BATCH(task, state, jax.random.fold_in(key, 100 + number), jnp.int32(0), index, data)
        some = task.some(state, jax.random.fold_in(key, 200 + number), index, data)
        yield state, [batch, some, task.evaluation(state, index, 50, data), task.tested(state, index, 50, data)]


def test_member_is_documented_and_prints_what_it_reads(task):
    for text in (inspect.cleandoc(type(task).__doc__ or ""), task.reference, task.score_label, task.levels):
        assert text
    assert all(f.metadata["help"] for f in dataclasses.fields(task))
    assert build_one(to_text(task), tasks) == task


@pytest.mark.parametrize("cls", tasks.members().values(), ids=tasks.members())
def test_published_protocols_are_configs_of_the_member(cls):
    for name, text in cls.protocols.items():
        assert name.isidentifier()
        protocol = build_one(text, tasks)
        assert type(protocol) is cls
        assert build_one(to_text(protocol), tasks) == protocol


def test_problem_is_stated_and_examples_keep_to_it(task, data):
    problem = task.problem(data)
    assert problem.kind == task.kind
    assert 0 <= problem.chance < 1
    low, high = problem.target_range
    example = task.example(data)
    shown = [through(task, jax.random.key(seed), data) for seed in range(3)]
    for batch in (batch for stream in shown for _, batches in stream for batch in batches if batch is not None):
        assert (batch.x.shape[1:], batch.x.dtype) == (example.shape[1:], example.dtype)
        if task.kind == "values":
            assert isinstance(batch.y, Transition)
            assert batch.y.next_x.shape == batch.x.shape
            for action in (batch.y.action, batch.y.best):
                assert action.min() >= 0
                assert action.max() < problem.actions
            assert batch.y.discount.min() >= 0
            assert batch.y.discount.max() <= 1
            assert jnp.isfinite(batch.y.reward).all()
        elif task.kind == "classification":
            assert batch.y.dtype == jnp.int32
            assert batch.y.min() >= 0
            assert batch.y.max() < problem.classes
        else:
            assert batch.y.dtype == jnp.float32
            assert batch.y.min() >= low
            assert batch.y.max() <= high
        if batch.weight is not None:
            assert batch.weight.shape == batch.x.shape[:1]
            assert batch.weight.min() >= 0
            assert batch.weight.sum() > 0


def test_baselines_are_scores(task, data):
    for index, (state, _) in enumerate(through(task, jax.random.key(0), data)):
        for name, value in task.baselines(state, jnp.int32(index), data).items():
            assert name.isidentifier()
            assert jnp.shape(value) == ()
            assert 0 <= value <= 1


def test_target_range_may_be_traced(task, data):
    plain = task.problem(data).target_range
    traced = jax.jit(lambda t: jnp.stack([jnp.asarray(v, jnp.float32) for v in t.problem(data).target_range]))(task)
    np.testing.assert_allclose(traced, plain, rtol=1e-6)
    assert all(isinstance(v, float) for v in plain), "a plain config must state plain numbers"


def test_deterministic_in_the_key_and_different_for_another(task, data):
    one, again, other = (list(through(task, jax.random.key(seed), data)) for seed in (0, 0, 1))
    same(one, again)
    assert differs(one, other)


def test_a_switch_keeps_the_old_context_as_previous(task, data):
    states = [state for state, _ in through(task, jax.random.key(0), data)]
    for before, after in itertools.pairwise(states):
        same(after.previous, before.current)


def test_jit_equals_eager(task, data):
    key = jax.random.key(0)
    state = INIT(task, key, data)
    with jax.disable_jit():
        first, advanced = task.init(key, data), task.advance(state, key, jnp.int32(1), data)
    same(state, first, 1e-4)
    same(ADVANCE(task, state, key, jnp.int32(1), data), advanced, 1e-4)


def varied(task):
    """The member with another value of every traced field that allows it."""
    for f in dataclasses.fields(task):
        if not f.metadata["static"]:
            with contextlib.suppress(UserError):
                task = dataclasses.replace(task, **{f.name: 0.5})
    return task


def test_vmap_over_seeds_and_strengths_equals_a_loop(task, data):
    """Nested as in a sweep: keys outside, strengths inside, every traced field at its default and at another value."""
    configs = (task, varied(task))
    keys = jax.random.split(jax.random.key(3), 3)

    def one(key, task, compiled=False):
        init, advance, batch = (INIT, ADVANCE, BATCH) if compiled else PLAIN
        state = advance(task, init(task, key, data), jax.random.fold_in(key, 1), jnp.int32(1), data)
        return batch(task, state, jax.random.fold_in(key, 2), jnp.int32(3), jnp.int32(1), data)

    inner = jax.vmap(one, (None, 0))
    grouped = jax.jit(jax.vmap(inner, (0, None)))
    together = grouped(keys, jax.tree.map(lambda *leaves: jnp.array(leaves), *configs))
    for i, key in enumerate(keys):
        for j, config in enumerate(configs):
            same(jax.tree.map(lambda leaf, at=(i, j): leaf[at], together), one(key, config, compiled=True), 1e-4)


def test_no_recompilation_across_tasks_steps_and_strengths(task, data):
    state = INIT(task, jax.random.key(0), data)
    state = ADVANCE(task, state, jax.random.key(1), jnp.int32(1), data)
    state, _ = BATCH(task, state, jax.random.key(1), jnp.int32(0), jnp.int32(1), data)
    before = dict(TRACES)
    for index in range(2, TASKS):
        config = dataclasses.replace(task, transition=0.2 * index)
        state = ADVANCE(config, state, jax.random.key(index), jnp.int32(index), data)
        for step in range(2):
            state, _ = BATCH(config, state, jax.random.key(step), jnp.int32(step), jnp.int32(index), data)
    assert before == TRACES


def test_a_stream_goes_on_from_a_state_that_was_stored(task, data):
    """Off the device and back, in the middle of a task, as by a checkpoint."""
    state = switched(task, data)
    stored = jax.tree.map(np.asarray, BATCH(task, state, jax.random.key(0), jnp.int32(0), jnp.int32(1), data)[0])
    both = []
    for begun in (jax.tree.map(jnp.asarray, stored), stored):
        begun, batch = BATCH(task, begun, jax.random.key(1), jnp.int32(1), jnp.int32(1), data)
        both.append((ADVANCE(task, begun, jax.random.key(2), jnp.int32(2), data), batch))
    same(*both)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), both[0][0]) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )


# The transition -------------------------------------------------------------------------------------------------------


def switched(task, data):
    """The state of task 1, of a seed in which its context differs from that before, if there is one."""
    for seed in range(5):
        state = INIT(task, jax.random.key(seed), data)
        state = ADVANCE(task, state, jax.random.key(10 + seed), jnp.int32(1), data)
        if differs(state.previous, state.current):
            break
    return state


def shown(task, state, step, data, transition):
    """The batches of 20 keys at a step, of a transition that is smeared over `transition` tasks, even beyond one."""
    # Past the checks of a config.
    task = jax.tree_util.tree_map_with_path(
        lambda path, leaf: transition if jax.tree_util.keystr(path) == ".transition" else leaf, task
    )
    batches = [BATCH(task, state, jax.random.key(i), jnp.int32(step), jnp.int32(1), data)[1] for i in range(20)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)


ONLY_NEW, ONLY_OLD = 0.0, 1e9


def rows(batch) -> list[bytes]:
    """Each example as one value."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(batch)]
    return [b"".join(leaf[i].tobytes() for leaf in leaves) for i in range(len(leaves[0]))]


@pytest.mark.parametrize("step", [0, 3, 6, 11])
def test_a_transition_of_one_mixes_linearly(task, data, step):
    """The share of the new context at `step` of 12 is step / 12: exactly in targets, in expectation in examples."""
    state, share = switched(task, data), step / 12
    step = step * task.length(1, data) // 12
    old, new, mixed = (shown(task, state, step, data, transition) for transition in (ONLY_OLD, ONLY_NEW, 1.0))
    if not differs(old, new):
        assert not differs(mixed, new)
    elif task.kind == "regression" and not np.any(old.x != new.x):
        np.testing.assert_array_equal(mixed.x, new.x)
        np.testing.assert_allclose(mixed.y, (1 - share) * old.y + share * new.y, rtol=1e-5, atol=1e-5)
    else:
        olds, news, found = rows(old), rows(new), rows(mixed)
        assert all(row in pair for row, *pair in zip(found, olds, news, strict=True))
        told_apart = [row == b for row, a, b in zip(found, olds, news, strict=True) if a != b]
        assert len(told_apart) > 50
        assert abs(np.mean(told_apart) - share) <= 4 * (share * (1 - share) / len(told_apart)) ** 0.5


def test_an_abrupt_switch_leaves_nothing_of_the_old_context(task, data):
    state = switched(task, data)
    forgotten = state._replace(previous=jax.tree.map(jnp.zeros_like, state.previous))
    for step in (0, 1, 11):
        same(shown(task, state, step, data, ONLY_NEW), shown(task, forgotten, step, data, ONLY_NEW))


def test_a_transition_ends_where_it_says(task, data):
    """transition = 0.5 of 12 steps, say: from update 6 on only the new context."""
    state, half = switched(task, data), task.length(1, data) // 2
    for step, done in ((half - 1, False), (half, True)):
        old, new, mixed = (shown(task, state, step, data, transition) for transition in (ONLY_OLD, ONLY_NEW, 0.5))
        assert differs(mixed, new) == (differs(old, new) and not done)
