"""Tasks that grow with their examples, tasks that end when they are learned, and outputs that are left out."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.errors import UserError
from plasticity.heads import Softmax
from plasticity.method import Method
from plasticity.mitigations import compose, mitigations
from plasticity.networks import networks
from plasticity.optimizers import optimizers
from plasticity.spec import build, build_one
from tasks import objectives
from tasks.base import Batch, tasks
from tasks.measure import Measure
from tasks.train import chunks, run_chunk, start

SIZES = "batch_size=4, examples_used=16, pool=4"
OFF = Measure(points="off", ranks_every=0)


def method(lr=0.03, members="none", optimizer="adam"):
    found = compose.canonical(build(members, mitigations))
    return Method(build_one("mlp(16, 1)", networks), build_one(f"{optimizer}({lr})", optimizers), found)


@lru_cache
def programs(text):
    """(task, its data, the first states of `[methods]`, and what runs a chunk of a span with them)."""
    task = build_one(text, tasks)
    data, seed = task.load(), jnp.int32(0)

    @lru_cache
    def chunk_of(span):
        def one(m, s, index, chunk):
            return run_chunk(task, m, OFF, span, seed, s, index, chunk, data)

        return jax.jit(jax.vmap(one, in_axes=(0, 0, None, None)))

    return task, data, jax.jit(jax.vmap(lambda m: start(task, m, seed, data))), chunk_of


def run(text, count, methods=None, longest=10**6):
    """State and `[count]` final records of runs of seed 0, one a method, in one program."""
    task, data, begin, chunk_of = programs(text)
    stacked = jax.tree.map(lambda *leaves: jnp.array(leaves, jnp.float32), *(methods or [method()]))
    state, finals = begin(stacked), []
    for index in range(count):
        for span, chunk in chunks(task.length(index, data), OFF, longest):
            state, record = chunk_of(span)(stacked, state, jnp.int32(index), chunk)
        finals.append(record.final)
    return state, finals


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def params(state):
    return state.learner.variables["params"]


# Growing tasks ------------------------------------------------------------------------------------------------


GROWING = f"warm_start(0.5, num_tasks=2, epochs=3, {SIZES})"


def test_epochs_give_each_task_its_own_length():
    """8 and 16 examples in batches of 4: 2 and 4 updates an epoch."""
    task = build_one(GROWING, tasks)
    data = task.load()
    assert [task.length(i, data) for i in (0, 1)] == [6, 12]
    assert [task.before(i, data) for i in (0, 1, 2)] == [0, 6, 18]
    for i in (0, 1):
        assert int(jax.jit(lambda i: task.length(i, data))(i)) == task.length(i, data)
        assert int(jax.jit(lambda i: task.before(i, data))(i)) == task.before(i, data)
    plain = build_one(f"warm_start(0.5, num_tasks=2, steps=7, {SIZES})", tasks)
    assert [plain.length(i, data) for i in (0, 1)] == [7, 7]
    assert plain.before(2, data) == 14


@pytest.mark.parametrize("longest", [10**6, 5])
def test_a_run_takes_as_many_updates_as_its_tasks_have(longest):
    """Adam counts them; a periodic reset sees the number of the update in the run, so none is at a wrong place."""
    state, _ = run(GROWING, 2, longest=longest)
    counts = [int(x[0]) for x in jax.tree.leaves(state.learner.opt_state) if jnp.issubdtype(x.dtype, jnp.integer)]
    assert counts == [18]
    # Every 17th update: once, in the second task, where plain training would have ended elsewhere.
    once, _ = run(GROWING, 2, [method(members="redo(tau=0.9, every=17)")], longest=longest)
    never, _ = run(GROWING, 2, [method(members="redo(tau=0.9, every=19)")], longest=longest)
    close(params(never), params(state), rtol=1e-4, atol=1e-6)
    assert not np.allclose(params(once)["hidden_0"]["kernel"], params(state)["hidden_0"]["kernel"], atol=1e-3)


def test_a_transition_is_a_share_of_the_tasks_own_length():
    """Half of 12 updates: update 5 may still show an example of the old task, update 6 cannot."""
    task = build_one(GROWING.replace("epochs", "transition=0.5, epochs"), tasks)
    data = task.load()
    state = task.advance(task.init(jax.random.key(0), data), jax.random.key(1), jnp.int32(1), data)
    # Old examples are those of the first task under wrong labels.
    marked = state._replace(previous=state.previous._replace(labels=state.previous.labels * 0 - 1))
    batch = jax.jit(lambda key, step: task.batch(marked, key, step, jnp.int32(1), data)[1].y)
    old = {step: sum(int((batch(jax.random.key(k), step) < 0).sum()) for k in range(30)) for step in (1, 5, 6, 11)}
    assert old[1] > old[5] > 0 == old[6] == old[11]


# Tasks that end when they are learned -------------------------------------------------------------------------


STOPPING = f"warm_start(0.5, num_tasks=2, epochs=60, stop_at=0.9, {SIZES})"
PLAIN = f"warm_start(0.5, num_tasks=2, epochs=EPOCHS, {SIZES})"


def test_a_run_rests_after_the_epoch_in_which_it_was_good_enough():
    """It is the run whose task has just so many epochs; its online score is that of the updates it took."""
    state, finals = run(STOPPING, 1)
    taken = int(finals[0]["updates_taken"][0])
    assert 0 < taken < 120
    assert taken % 2 == 0
    whole, (expected,) = run(PLAIN.replace("EPOCHS", str(taken // 2)), 1)
    close(params(state), params(whole), rtol=1e-5, atol=1e-7)
    close(state.learner.opt_state, whole.learner.opt_state, rtol=1e-5, atol=1e-7)
    for name in ("online_score", "online_loss", "end_loss"):
        close(finals[0][name], expected[name], rtol=1e-5)


def test_the_epoch_before_was_not_good_enough_and_the_last_one_was():
    taken = int(run(STOPPING, 1)[1][0]["updates_taken"][0])

    def of_the_last_epoch(epochs):
        with_it, without = (
            run(PLAIN.replace("EPOCHS", str(n)), 1)[1][0]["online_score"][0] for n in (epochs, epochs - 1)
        )
        return float(with_it * epochs - without * (epochs - 1))

    assert of_the_last_epoch(taken // 2) > 0.9 - 1e-5
    assert of_the_last_epoch(taken // 2 - 1) < 0.9


@pytest.mark.parametrize("longest", [10**6, 7])
def test_runs_of_a_group_rest_each_in_its_own_time(longest):
    """A slow one, a fast one and one that never learns; each is what it is alone, in the next task, too."""
    methods = [method(lr, optimizer="sgd") for lr in (0.02, 0.2, 1e-6)]
    together, finals = run(STOPPING, 2, methods, longest)
    taken = np.array([f["updates_taken"] for f in finals])
    assert taken[0, 1] < taken[0, 0] < taken[0, 2] == 120
    for lane, one in enumerate(methods):
        alone, own = run(STOPPING, 2, [one])
        close(
            jax.tree.map(lambda x, lane=lane: x[lane : lane + 1], params(together)), params(alone), rtol=1e-4, atol=1e-6
        )
        for index in (0, 1):
            assert own[index]["updates_taken"][0] == taken[index, lane]


def test_a_score_of_one_can_be_reached():
    _, finals = run(STOPPING.replace("0.9", "1"), 1)
    assert finals[0]["updates_taken"][0] < 120


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("offset_regression(stop_at=0.5)", "stop_at is an accuracy, which a task of regression has not; got 0.5"),
        ("warm_start(stop_at=1.5)", "stop_at must be >= 0 and <= 1, got 1.5"),
        ("warm_start(epochs=-1)", "epochs must be >= 0, got -1"),
    ],
)
def test_impossible_lengths_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        build_one(text, tasks).load()


# Outputs that are left out ------------------------------------------------------------------------------------


def test_loss_and_prediction_of_some_classes_by_hand():
    """Logits 0, ln 3, ln 100 where the third class is not there: probabilities 1/4 and 3/4."""
    outputs = jnp.log(jnp.array([[1.0, 3.0, 100.0]]))
    batch = Batch(jnp.zeros((1, 1)), jnp.array([1]), classes=jnp.array([[True, True, False]]))
    np.testing.assert_allclose(objectives.loss(Softmax(3), outputs, batch), -np.log(0.75), rtol=1e-6)
    assert objectives.score(Softmax(3), outputs, batch) == 1
    assert objectives.score(Softmax(3), outputs, batch._replace(classes=None)) == 0
    smooth = -0.8 * np.log(0.75) - 0.2 * (np.log(0.25) + np.log(0.75)) / 2
    np.testing.assert_allclose(objectives.loss(Softmax(3, 0.2), outputs, batch), smooth, rtol=1e-6)
    gradient = jax.grad(lambda o: objectives.loss(Softmax(3, 0.2), o, batch))(outputs)
    # Softmax less the smoothed code (.1, .9, 0).
    np.testing.assert_allclose(gradient, [[0.25 - 0.1, 0.75 - 0.9, 0.0]], rtol=1e-5)


@pytest.mark.parametrize("smoothing", ["none", "label_smoothing(0.1)"])
def test_outputs_of_absent_classes_do_not_move(smoothing):
    text = "class_incremental(2, masked=true, num_tasks=2, steps=10, batch_size=4, examples_used=100, pool=4)"
    task = build_one(text, tasks)
    data = task.load()
    state, finals = run(text, 1, [method(members=smoothing)])
    order = np.asarray(state.stream.current.order[0])
    bias = np.asarray(params(state)["output"]["bias"][0])
    assert (bias[order[:2]] != 0).all()
    assert (bias[order[2:]] == 0).all()
    assert np.isfinite(finals[0]["end_loss"]).all()
    unmasked, _ = run(text.replace("masked=true, ", ""), 1)
    assert (np.asarray(params(unmasked)["output"]["bias"][0]) != 0).all()
    # In the next task four classes are there.
    batch = task.fixed(
        task.advance(task.init(jax.random.key(0), data), jax.random.key(1), jnp.int32(1), data), 1, 8, data
    )
    assert (np.asarray(batch.classes).sum(1) == 4).all()
    assert np.asarray(batch.classes)[np.arange(8), batch.y].all()


def test_masks_follow_renamed_classes():
    """binary pairs name their classes 0 and 1 (of all outputs, these are there)."""
    task = build_one("binary_pairs(masked=true, steps=4, batch_size=4, examples_used=200, pool=4)", tasks)
    data = task.load()
    batch = task.fixed(task.init(jax.random.key(3), data), jnp.int32(0), 8, data)
    classes = np.asarray(batch.classes)
    assert classes[np.arange(8), batch.y].all()
    assert classes.sum(1).tolist() == [len(set(np.asarray(batch.y)))] * 8
