"""Slowly changing regression against an independent rewrite, and its published result at a small size."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from plasticity import rng
from plasticity.errors import UserError
from plasticity.method import Method
from plasticity.mitigations import compose, mitigations
from plasticity.networks import networks
from plasticity.optimizers import optimizers
from plasticity.spec import build, build_one
from tasks.base import tasks
from tasks.measure import Measure
from tasks.train import Span, chunks, run_chunk, start

OFF = Measure(points="off", ranks_every=0)


def stream(text="bit_flipping"):
    return build_one(text, tasks)


def method(mitigation="none"):
    members = compose.canonical(build(mitigation, mitigations))
    return Method(build_one("mlp(5, 1)", networks), build_one("sgd(0.01)", optimizers), members)


def target(context, x, beta=0.7):
    """The frozen network as the source words it, one unit after the other."""
    into, out = np.asarray(context.into), np.asarray(context.out)
    y = out[-1]
    for i in range(into.shape[1]):
        weights = into[:, i]
        threshold = beta * len(weights) - (weights < 0).sum()
        y += out[i] * (weights[:-1] @ x + weights[-1] >= threshold - 1e-6)
    return y


def test_targets_are_those_of_the_threshold_network():
    task = stream()
    context = task.first(jax.random.key(0), ())
    for code, drawn in enumerate(product((0, 1), repeat=5)):
        x = np.concatenate([context.constant, drawn[::-1]])
        batch = task._examples(context, jnp.array([code]))
        np.testing.assert_array_equal(batch.x[0], x)
        assert batch.y[0] == target(context, x)
    assert np.std(context.targets) > 0.5


def test_a_unit_fires_from_the_share_of_agreeing_inputs_on():
    """Two inputs and the bias, weights +1, -1, +1: of three all must agree with beta = .7, two with beta = .6."""
    into, out = jnp.array([[1.0], [-1.0], [1.0]]), jnp.array([1.0, 0.0])
    for beta, fires in ((0.7, [0, 1, 0, 0]), (0.6, [1, 1, 0, 1])):
        found = [
            float(stream(f"bit_flipping(inputs=2, flipping=1, features=1, beta={beta})")
                  ._tabulated(into, out, jnp.array([float(first)])).targets[second])
            for first, second in ((0, 0), (1, 0), (0, 1), (1, 1))
        ]  # fmt: skip
        assert found == fires


@pytest.mark.parametrize("flip", ["one", "all"])
def test_a_switch_changes_the_constant_bits_and_nothing_else(flip):
    task = stream(f"bit_flipping(flip={flip})")
    before = task.first(jax.random.key(0), ())
    keys = jax.random.split(jax.random.key(1), 3000)
    after = jax.vmap(lambda key: task.following(before, key, jnp.int32(1), ()))(keys)
    np.testing.assert_array_equal(after.into, jnp.broadcast_to(before.into, after.into.shape))
    np.testing.assert_array_equal(after.out, jnp.broadcast_to(before.out, after.out.shape))
    changed = np.asarray(after.constant != before.constant)
    if flip == "one":
        assert (changed.sum(1) == 1).all()
        assert stats.chisquare(changed.sum(0)).pvalue > 1e-3
    else:
        share = changed.mean(0)
        assert np.all(np.abs(share - 0.5) < 4 * 0.5 / 3000**0.5)


def test_drawn_bits_are_uniform_and_constant_bits_constant():
    task = stream()
    context = task.first(jax.random.key(0), ())
    x = np.asarray(task.sample(context, jax.random.key(1), 8000, jnp.int32(0), ()).x)
    np.testing.assert_array_equal(x[:, :15], np.broadcast_to(context.constant, (8000, 15)))
    codes = x[:, 15:].astype(int) @ (1 << np.arange(5))
    assert stats.chisquare(np.bincount(codes, minlength=32)).pvalue > 1e-3


def test_the_target_network_has_even_signs():
    context = stream("bit_flipping(features=4000)").first(jax.random.key(3), ())
    for weights in (context.into, context.out):
        assert set(np.unique(weights)) == {-1.0, 1.0}
        assert abs(np.mean(weights)) < 4 / weights.size**0.5


def test_training_equals_a_numpy_loop():
    """Two tasks of 40 updates of a 5-unit network by plain SGD, batch 1: losses, and explained variance over a task."""
    task, seed = stream("bit_flipping(steps=40, num_tasks=2)"), jnp.int32(7)
    state = start(task, method(), seed, ())
    params = jax.tree.map(np.array, state.learner.variables["params"])
    w1, b1 = params["hidden_0"]["kernel"], params["hidden_0"]["bias"]
    w2, b2 = params["output"]["kernel"], params["output"]["bias"]
    (span, chunk), = chunks(task.steps, OFF, 1000)  # fmt: skip
    advance = jax.jit(lambda state, index: run_chunk(task, method(), OFF, span, seed, state, index, chunk, ()))
    for index in range(2):
        state, record = advance(state, jnp.int32(index))
        shown = batches(task, seed, state.stream, index)
        errors, ys = [], []
        for x, y in shown:
            z = x @ w1 + b1
            h = np.maximum(z, 0)
            error = (h @ w2 + b2)[0] - y
            errors.append(error), ys.append(y)
            back = error * w2[:, 0] * (z > 0)
            w2, b2 = w2 - 0.01 * error * h[:, None], b2 - 0.01 * error
            w1, b1 = w1 - 0.01 * np.outer(x, back), b1 - 0.01 * back
        errors, ys = np.array(errors), np.array(ys)
        assert record.final["online_loss"] == pytest.approx(np.mean(errors**2) / 2, rel=1e-4)
        r2 = 1 - np.mean(errors**2) / ys.var()
        assert record.final["online_score"] == pytest.approx(max(r2, 0.0), abs=1e-4)


def batches(task, seed, state, index):
    """The examples that a run saw in a task, from the state after it."""
    key = jax.random.fold_in(rng.stream(seed, "data"), index)
    one = jax.jit(lambda step: task.batch(state, jax.random.fold_in(key, step), step, jnp.int32(index), ())[1])
    for step in range(task.steps):
        batch = one(jnp.int32(step))
        yield np.asarray(batch.x[0]), float(batch.y[0])


def test_the_evaluation_is_exact():
    task = stream()
    state = task.init(jax.random.key(0), ())
    batch = task.evaluation(state, jnp.int32(0), 4096, ())
    assert batch.x.shape == (32, 20)
    assert len(np.unique(np.asarray(batch.x), axis=0)) == 32


def test_impossible_numbers_of_bits():
    with pytest.raises(UserError, match=r"must be from 1 to 12, got 20 - 20 = 0"):
        stream("bit_flipping(flipping=20)")
    with pytest.raises(UserError, match=r"got 30 - 15 = 15"):
        stream("bit_flipping(inputs=30)")


def errors_over_tasks(mitigation, num_tasks=40, seeds=12):
    """Squared error of each task, `[tasks, seeds]`."""
    task = stream(f"bit_flipping(num_tasks={num_tasks}, flip=all)")
    (_, chunk), = chunks(task.steps, OFF, 10**6)  # fmt: skip
    keys, config = jnp.arange(seeds), method(mitigation)
    state = jax.jit(jax.vmap(lambda seed: start(task, config, seed, ())))(keys)

    @jax.jit
    def advance(state, index):
        run = jax.vmap(lambda seed, s: run_chunk(task, config, OFF, Span(), seed, s, index, chunk, ()))
        return run(keys, state)

    found = []
    for index in range(num_tasks):
        state, record = advance(state, jnp.int32(index))
        found.append(2 * np.asarray(record.final["online_loss"]))
    return np.array(found)


def test_published_result_backpropagation_gets_worse_and_continual_backprop_does_not():
    """Dohare et al. 2024, Nature 632: 5 ReLU units, SGD .01; replacement rate 1e-4. A tenth of the published length."""
    plain, mended = errors_over_tasks("none"), errors_over_tasks("continual_backprop(1e-4)")
    rise = (plain[-10:] - plain[:10]).mean(0)
    assert stats.ttest_1samp(rise, 0, alternative="greater").pvalue < 0.01
    assert (plain[-10:] - mended[-10:]).mean() > 2 * abs((mended[-10:] - mended[:10]).mean())
    assert stats.ttest_rel(plain[-10:].mean(0), mended[-10:].mean(0), alternative="greater").pvalue < 0.01
