"""One run as one pure function: alone or in a group, whole or in pieces, measured or not, it is the same run."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.method import Method
from plasticity.mitigations import compose, mitigations
from plasticity.networks import Architecture, networks
from plasticity.optimizers import optimizers
from plasticity.spec import build, build_one
from tasks.base import tasks
from tasks.data import load
from tasks.measure import Measure
from tasks.train import RunState, Span, base_head, chunks, run_chunk, start

SIZE = "num_tasks=3, batch_size=8, examples_used=16, pool=4"
TASK = build_one(f"label_reset(eps=0.5, steps=12, {SIZE})", tasks)
OFF = Measure(points="off", ranks_every=0)
DENSE = Measure(points="dense", reference=16)
DATA = load("fashion_mnist", 16, 4)
SPEC = "redo(tau=0.3, every=4)+l2(1e-3)+weight_decay(0.1)+shrink_perturb(shrink=0.8)"


def method(spec=SPEC, optimizer="adam(0.01)") -> Method:
    return Method(
        networks.get("mlp")(8, 2), build_one(optimizer, optimizers), compose.canonical(build(spec, mitigations))
    )


@lru_cache
def program(task, measure, span):
    def advance(method, seed, state, index, chunk):
        return run_chunk(task, method, measure, span, seed, state, index, chunk, DATA)

    return jax.jit(advance)


@lru_cache
def starter(task):
    return jax.jit(lambda method, seed: start(task, method, seed, DATA))


def run(method, seed=0, task=TASK, measure=OFF, count=2, longest=10**6):
    """State and records after the first `count` tasks, in chunks of at most `longest` updates."""
    state, records = starter(task)(method, jnp.int32(seed)), []
    for index in range(count):
        for span, chunk in chunks(task.steps, measure, longest):
            state, record = program(task, measure, span)(method, jnp.int32(seed), state, jnp.int32(index), chunk)
            records.append(record)
    return state, records


def close(a, b, rtol=0.0, atol=0.0):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


SEEDS = jnp.arange(8, dtype=jnp.int32)
STRENGTHS = [(0.3, 0.0, 0.0), (0.3, 1e-2, 0.1), (-1, 0.0, 0.0), (0.1, 1e-3, 0.5), (0.5, 0.0, 1.0), (0.2, 0.1, 0.0)]
METHODS = [method(f"redo(tau={t}, every=4)+l2({s})+weight_decay({d})+shrink_perturb") for t, s, d in STRENGTHS]
#: The last two lanes: another rate, and one that overflows in the first update.
METHODS += [method(optimizer="adam(0.003)"), method(optimizer="adam(1e38)")]


@lru_cache
def group():
    """All 8 seeds x 8 methods as one program, nested as sweeps do it, through two tasks."""
    stacked = jax.tree.map(lambda *leaves: jnp.array(leaves, jnp.float32), *METHODS)
    ((span, chunk),) = chunks(TASK.steps, OFF, 100)
    by_method = RunState(None, 0, 0)

    def advance(m, seed, state, index):
        return run_chunk(TASK, m, OFF, span, seed, state, index, chunk, DATA)

    starts = jax.vmap(partial(start, TASK, data=DATA), in_axes=(0, None), out_axes=by_method)
    state = jax.jit(jax.vmap(starts, in_axes=(None, 0)))(stacked, SEEDS)
    inner = jax.vmap(advance, in_axes=(0, None, by_method, None), out_axes=(by_method, 0))
    through = jax.jit(jax.vmap(inner, in_axes=(None, 0, 0, None)))
    records = []
    for index in range(2):
        state, record = through(stacked, SEEDS, state, jnp.int32(index))
        records.append(record)
    return state, records


@pytest.mark.parametrize("m", range(7))
def test_a_run_in_a_group_of_64_is_the_run_alone(m):
    """To float tolerance: additions come in another order. (The last lane is all NaN and infinity.)"""
    state, records = group()
    for s, seed in enumerate(SEEDS):
        alone, lone_records = run(METHODS[m], seed)
        lane = jax.tree.map(lambda leaf, s=s: leaf[s, m], (state.learner, state.total))
        close(lane, (alone.learner, alone.total), rtol=1e-3, atol=1e-4)
        close(jax.tree.map(lambda leaf, s=s: leaf[s, m], records), lone_records, rtol=1e-3, atol=1e-4)
        close(jax.tree.map(lambda leaf, s=s: leaf[s], state.stream), alone.stream)


def test_a_run_that_diverges_harms_no_neighbour():
    _, records = group()
    loss = np.asarray(records[-1].final["end_loss"])
    assert np.all(np.isfinite(loss[:, :7]))
    assert not np.any(np.isfinite(loss[:, 7]))


def test_seeds_and_strengths_make_a_difference():
    """Or the comparison of lanes would compare copies."""
    loss = np.asarray(group()[1][-1].final["end_loss"])[:, :7]
    assert len(np.unique(loss.round(5))) == loss.size


def test_a_task_in_chunks_is_the_whole_task():
    assert [span for span, _ in chunks(TASK.steps, OFF, 5)] == [
        Span(True, False),
        Span(False, False),
        Span(False, True),
    ]
    whole, pieces = run(method()), run(method(), longest=6)
    assert len(pieces[1]) == 4
    close(pieces[0], whole[0], rtol=1e-5, atol=1e-6)
    ends = [record.final for record in pieces[1] if record.final]
    close(ends, [record.final for record in whole[1]], rtol=1e-5, atol=1e-6)


def test_measuring_changes_nothing_of_the_run():
    (state, _), (measured, records) = run(method()), run(method(), measure=DENSE)
    close(measured, state, rtol=1e-5, atol=1e-6)
    assert records[0].dense["weight_norm"].shape == (len(DENSE.updates(TASK.steps)),)
    assert np.all(np.isfinite(records[1].final["srank"]))


def test_compiled_and_operation_by_operation_are_the_same():
    """Nothing may depend on the index and the steps being traced, or on a branch being left out."""
    # Batches of the size that the tests of mitigations have: their small programs are compiled already.
    task = build_one(f"label_reset(steps=3, {SIZE.replace('batch_size=8', 'batch_size=16')})", tasks)
    chosen, seed, index = method("layer_norm+redo(tau=0.5, every=2)+shrink_perturb"), jnp.int32(0), jnp.int32(1)
    begun = starter(task)(chosen, seed)
    ((span, chunk),) = chunks(task.steps, OFF, 100)
    compiled = program(task, OFF, span)(chosen, seed, begun, index, chunk)
    with jax.disable_jit():
        eager = run_chunk(task, chosen, OFF, span, seed, begun, index, chunk, DATA)
    close(eager, compiled, rtol=1e-3, atol=1e-4)


def test_online_metrics_are_those_before_the_update():
    """Every batch is all examples, so that the losses before and after the first update can be computed by hand."""
    task = build_one(f"target_drift(steps=2, offset=2, {SIZE.replace('batch_size=8', 'batch_size=16')})", tasks)
    rate = 0.05
    chosen = method("none", f"sgd({rate})")
    begun = starter(task)(chosen, jnp.int32(0))
    head = base_head(task.problem(DATA))
    network = chosen.network.build(Architecture(head))
    batch = task.examples(begun.stream.current, jnp.arange(16), DATA)

    def loss(variables):
        outputs = network.apply(variables, batch.x)[0]
        return jnp.mean(0.5 * jnp.square(outputs[:, 0] - batch.y)), head.score(outputs[:, 0], batch.y)

    variables, seen = begun.learner.variables, []
    for _ in range(2):
        value, grads = jax.value_and_grad(loss, has_aux=True)(variables)
        seen.append(value)
        variables = jax.tree.map(lambda p, g: p - rate * g, variables, grads)
    online_loss, online_score = np.mean(seen, axis=0)
    final = run(chosen, task=task, count=1)[1][0].final
    assert seen[1][0] < 0.9 * seen[0][0]
    np.testing.assert_allclose(final["online_loss"], online_loss, rtol=1e-4)
    np.testing.assert_allclose(final["online_score"], online_score, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose([final["end_loss"], final["end_score"]], loss(variables), rtol=1e-4, atol=1e-6)


def test_the_first_accuracy_is_that_of_the_untouched_network():
    """One update on all examples changes what is right, which the online score of that update must not yet know."""
    task = build_one(f"label_reset(steps=1, {SIZE.replace('batch_size=8', 'batch_size=16')})", tasks)
    chosen, seed = method("none", "sgd(10)"), 3
    begun = starter(task)(chosen, jnp.int32(seed))
    batch = task.examples(begun.stream.current, jnp.arange(16), DATA)
    network = chosen.network.build(Architecture(base_head(task.problem(DATA))))

    def accuracy(variables):
        return float(np.mean(np.argmax(network.apply(variables, batch.x)[0], axis=1) == batch.y))

    state, records = run(chosen, seed, task, count=1)
    before, after = accuracy(begun.learner.variables), accuracy(state.learner.variables)
    assert before != after
    assert float(records[0].final["online_score"]) == pytest.approx(before)
    assert float(records[0].final["end_score"]) == pytest.approx(after)


#: With a rate of next to nothing the losses are those of the batches, and what moves weights is an event.
FROZEN = "sgd(1e-30)"
PLAIN = method("none", FROZEN)
GONE = method("l2(0)+weight_decay+shrink_perturb(shrink=0, perturb=0)", FROZEN)


def test_the_online_score_starts_again_with_each_task():
    """Whole epochs and frozen weights: the mean over the task's batches is that over its examples."""
    for record in run(PLAIN)[1]:
        assert float(record.final["online_loss"]) == pytest.approx(float(record.final["end_loss"]), rel=1e-4)
        assert float(record.final["online_score"]) == pytest.approx(float(record.final["end_score"]), abs=1e-5)


def test_periods_are_counted_over_the_run_and_not_over_a_task():
    """A check every 16 updates, in tasks of 12, is due once in the second task."""
    recycling, neutral = (method(f"redo(tau={tau}, every=16)") for tau in (1, -1))
    after_one, after_two = ([run(m, count=n)[0].learner.variables for m in (recycling, neutral)] for n in (1, 2))
    close(*after_one)
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, after_two), strict=True))


def test_a_mitigation_does_not_change_the_data():
    """Same order of examples, same contexts, same initial weights: what a method draws has a stream of its own."""
    close(run(method())[0].stream, run(PLAIN)[0].stream)
    close(*(starter(TASK)(m, jnp.int32(0)).learner.variables for m in (method(), PLAIN)))


def test_batches_are_the_same_under_every_method():
    """Seen in the losses, which are summed update by update."""
    totals = [run(m, count=1)[0].total for m in (PLAIN, GONE)]
    close(totals[0], totals[1], rtol=1e-6)
    assert not np.allclose(run(PLAIN, seed=1, count=1)[0].total, totals[0])  # another seed has others


def test_events_come_at_switches_only():
    """The first task begins with no event; at the second a shrink to nothing is seen."""
    after_one, after_two = (run(GONE, count=n)[0].learner.variables for n in (1, 2))
    close(after_one, starter(TASK)(GONE, jnp.int32(0)).learner.variables, atol=1e-20)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(after_two)) < 1e-20


def test_points_of_measurement():
    assert DENSE.updates(12) == (1, 2, 4, 8, 12)
    assert DENSE.updates(8) == (1, 2, 4, 8)
    assert DENSE.updates(12, longest=3) == (1, 2, 3, 4, 6, 8, 9, 12)
    assert OFF.updates(12) == (12,)
    assert Measure(points="end").updates(12, longest=5) == (5, 10, 12)


@pytest.mark.parametrize("longest", [1, 3, 5, 12, 100])
@pytest.mark.parametrize("measure", [DENSE, OFF], ids=["dense", "off"])
def test_chunks_cover_every_update_once(measure, longest):
    done = []
    for _, chunk in chunks(TASK.steps, measure, longest):
        for first, last in zip(chunk.firsts.tolist(), chunk.lasts.tolist(), strict=True):
            done += range(first, last + 1)
        assert chunk.lasts[-1] - chunk.firsts[0] < max(longest, 1)
    assert done == list(range(TASK.steps))
