"""Drawing in proportion: frequencies, block sums that do not drift, leaves of what is no start, weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from test_replay_transitions import SHAPE, Episodes, drawn, fill, program, stream

from rl.replay import blocks, sampling
from rl.replay.ring import Layout

LAYOUT = Layout(16, 3, SHAPE, stack=4, n_step=3, gamma=0.9, block=12)
ROWS = 45

update = jax.jit(sampling.update_priorities, static_argnums=0)


@functools.cache
def expected():
    return sorted(((row % LAYOUT.slots) * 3 + env) for row, env in Episodes(LAYOUT, stream(3, ROWS, 3)).transitions())


def frequencies(ring, how, draws=40):
    leaves = []
    for seed in range(draws):
        draw = drawn(LAYOUT, ring, jnp.int32(ROWS), how, seed=seed)
        leaves.append(np.asarray(draw.slot * 3 + draw.env))
    return np.bincount(np.concatenate(leaves), minlength=LAYOUT.capacity), draw


def everything(ring):
    """A `Draw` that holds every start once."""
    draw = drawn(LAYOUT, ring, jnp.int32(ROWS), sampling.Uniform(), batch=1024)
    index = jnp.asarray(expected())
    return draw._replace(slot=index // 3, env=index % 3)


def test_uniform_draws_are_uniform():
    counts, _ = frequencies(fill(LAYOUT, stream(3, ROWS, 3)), sampling.Uniform())
    assert counts.sum() == counts[expected()].sum()
    assert stats.chisquare(counts[expected()]).pvalue > 1e-4


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_prioritised_draws_follow_the_formula(share):
    how = sampling.Prioritized(0.5, share)
    ring = fill(LAYOUT, stream(3, ROWS, 3), prioritized=True)
    priority = np.random.default_rng(0).uniform(0.1, 9, len(expected())).astype(np.float32)
    ring = update(LAYOUT, ring, everything(ring), jnp.asarray(priority), how)
    counts, draw = frequencies(ring, how)
    by_hand = np.zeros(LAYOUT.capacity)
    by_hand[expected()] = (1 - share) * priority**0.5 / (priority**0.5).sum() + share / len(priority)
    assert counts.sum() == counts[expected()].sum()
    assert stats.chisquare(counts[expected()], by_hand[expected()] * counts.sum()).pvalue > 1e-4
    np.testing.assert_allclose(draw.probability, by_hand[np.asarray(draw.slot * 3 + draw.env)], rtol=1e-5)
    assert int(draw.size) == len(priority)


def test_a_million_equal_leaves_are_drawn_evenly():
    """One float32 number a draw would miss some leaves and hit others twice as often."""
    many = blocks.Blocks(jnp.ones((1000, 1000)), jnp.full(1000, 1000.0), jnp.ones(()))
    index = np.asarray(jax.jit(blocks.draw, static_argnums=2)(many, jax.random.key(0), 40_000))
    assert stats.kstest((index + 0.5) / 1e6, "uniform").pvalue > 1e-3
    assert stats.chisquare(np.bincount(index % 1000, minlength=1000)).pvalue > 1e-3


def test_zero_leaves_are_never_drawn():
    leaf = np.zeros((6, 40), np.float32)
    leaf[2, 7], leaf[2, 39], leaf[5, 0], leaf[4, 3] = 1e-30, 3.0, 1e20, 1e-3
    some = blocks.Blocks(jnp.asarray(leaf), jnp.asarray(leaf.sum(1)), jnp.ones(()))
    index = np.asarray(blocks.draw(some, jax.random.key(1), 2000))
    assert (leaf.reshape(-1)[index] > 0).all()
    # Weights of 0 at both ends, and draws at both ends of the interval.
    edge = jnp.asarray([0.0, 0.0, 0.3, 0.0, 0.1, 0.0])
    picked = blocks._pick(jnp.asarray([0.0, 1.0]), jnp.stack([edge, edge]))
    assert picked.tolist() == [2, 4]


def test_block_sums_never_drift():
    layout = Layout(40, 4, (1,), stack=2, n_step=2, block=20)
    how = sampling.Prioritized(0.7, 0.05)
    ring = fill(layout, [(s._replace(frame=s.frame[:, 0, 0, :1]), a) for s, a in stream(1, 97, 4)], prioritized=True)
    none = jnp.zeros(4, bool)

    def many(ring, count, keys):
        def body(carry, key):
            ring, count = carry
            draw = sampling.draw(layout, ring, count, key, 8, how)
            ring = sampling.update_priorities(layout, ring, draw, 10 ** jax.random.uniform(key, (8,), None, -6, 6), how)
            stored = sampling_row(key)
            return (append(layout, ring, count, stored), count + 1), draw.probability.min()

        return jax.lax.scan(body, (ring, count), keys)

    from rl.replay.ring import Stored, append

    def sampling_row(key):
        stop = jax.random.bernoulli(key, 0.1, (4,))
        return Stored(jnp.zeros((4, 1), jnp.uint8), jnp.zeros(4), stop, stop, none, none)

    (ring, count), least = jax.jit(many)(ring, jnp.int32(97), jax.random.split(jax.random.key(0), 5000))
    leaf, sums, peak = ring.priorities
    np.testing.assert_allclose(sums, np.asarray(leaf, np.float64).sum(1), rtol=1e-6)
    assert float(least.min()) > 0
    assert int((np.asarray(leaf) > 0).sum()) == int(ring.starts)
    assert float(peak) >= float(leaf.max())
    assert int(count) == 5097


def test_what_is_no_start_any_more_stays_zero_and_duplicates_count_once():
    how = sampling.Prioritized(1.0, 0.0)
    rows = stream(3, ROWS, 3)
    ring = fill(LAYOUT, rows, prioritized=True)
    draw = everything(ring)
    for k in (ROWS, ROWS + 1, ROWS + 2):
        ring = program(LAYOUT)(ring, jnp.int32(k), *stream(4, 3, 3)[k - ROWS])
    before = np.asarray(ring.priorities.leaf)
    ring = update(LAYOUT, ring, draw, jnp.full(len(expected()), 7.0), how)
    after = np.asarray(ring.priorities.leaf)
    assert ((after > 0) == (before > 0)).all()
    assert 0 < (after == 7).sum() < len(expected())
    assert float(ring.priorities.peak) == 7

    alive = np.flatnonzero(after.reshape(-1) == 7)[:1].repeat(4)
    twice = draw._replace(slot=jnp.asarray(alive // 3), env=jnp.asarray(alive % 3))
    ring = update(LAYOUT, ring, twice, jnp.asarray([2.0, 5.0, 3.0, 1.0]), how)
    assert ring.priorities.leaf.reshape(-1)[alive[0]] == 5
    assert float(ring.priorities.peak) == 7


def test_new_starts_get_the_largest_priority_ever():
    how = sampling.Prioritized(0.5, 0.0)
    ring = fill(LAYOUT, stream(3, ROWS, 3), prioritized=True)
    one = jax.tree.map(lambda x: x[:1] if x.ndim else x, everything(ring))
    for value in (16.0, 4.0):
        ring = update(LAYOUT, ring, one, jnp.asarray([value]), how)
    quiet = stream(4, 1, 3)[0][0]._replace(first=np.zeros(3, bool))
    before = np.asarray(ring.priorities.leaf).reshape(-1, 3)[(ROWS - 3) % 16]
    assert (before == 0).all()
    ring = program(LAYOUT)(ring, jnp.int32(ROWS), quiet, np.zeros(3, int))
    entered = np.asarray(ring.priorities.leaf).reshape(-1, 3)[(ROWS - 3) % 16]
    stop = np.asarray(ring.flags)[(ROWS - 3) % 16] & 2 > 0
    np.testing.assert_array_equal(entered, np.where(stop, 0, 4.0))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_priorities_of_a_run_that_diverges_are_defined(bad):
    how = sampling.Prioritized(0.5, 0.0)
    ring = fill(LAYOUT, stream(3, ROWS, 3), prioritized=True)
    ring = update(LAYOUT, ring, everything(ring), jnp.full(len(expected()), bad), how)
    draw = drawn(LAYOUT, ring, jnp.int32(ROWS), how)
    assert set(np.asarray(draw.slot * 3 + draw.env).tolist()) == set(expected())
    np.testing.assert_allclose(draw.probability, 1 / len(expected()), rtol=1e-5)


def test_importance_weights_by_hand():
    weights = sampling.importance_weights(jnp.asarray([0.5, 0.125, 0.25]), jnp.int32(4), 0.5)
    np.testing.assert_allclose(weights, [0.5, 1.0, 0.5**0.5], rtol=1e-6)
    np.testing.assert_array_equal(sampling.importance_weights(jnp.asarray([0.5, 0.1]), jnp.int32(4), 0.0), [1, 1])
    np.testing.assert_array_equal(sampling.importance_weights(jnp.asarray([0.0, 0.0]), jnp.int32(0), 1.0), [0, 0])


def test_an_empty_ring_gives_probability_zero():
    for how in (sampling.Uniform(), sampling.Prioritized()):
        ring = fill(LAYOUT, stream(0, 2, 3), prioritized=not isinstance(how, sampling.Uniform))
        draw = drawn(LAYOUT, ring, jnp.int32(2), how)
        assert int(draw.size) == 0
        assert (np.asarray(draw.probability) == 0).all()
