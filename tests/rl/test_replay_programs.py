"""What the compiled programs do: lanes equal single ones, one program for all counts, and no copy of the ring."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import AS_USERS
from test_replay_transitions import SHAPE, stream

from rl.replay import ring as rings
from rl.replay import sampling
from rl.replay.ring import Layout

LAYOUT = Layout(20, 3, SHAPE, stack=4, n_step=3, block=9)
HOW = sampling.Prioritized(0.6, 0.1)


def cycle(layout, prioritized, ring, count, key, stored, action):
    """All that an agent does with its ring in one cycle."""
    ring = rings.append(layout, ring, count, stored)
    count = count + 1
    slots, mask = rings.window(layout, ring, count)
    seen = rings.assemble(ring.frames, slots, jnp.arange(layout.envs), mask, layout.frame_shape)
    ring = rings.set_action(layout, ring, count, action)
    draw = sampling.draw(layout, ring, count, key, 8, HOW if prioritized else sampling.Uniform())
    obs = rings.assemble(ring.frames, draw.obs_slots, draw.env, draw.obs_mask, layout.frame_shape)
    if prioritized:
        priority = jnp.abs(draw.reward) + obs.mean() / 255 + draw.probability
        ring = sampling.update_priorities(layout, ring, draw, priority, HOW)
    return ring, (draw, seen, obs)


def inputs(lanes, rows):
    many = [stream(seed, rows, 3) for seed in range(lanes)]
    return [jax.tree.map(lambda *x: np.stack(x), *[one[k] for one in many]) for k in range(rows)]


@pytest.mark.parametrize("prioritized", [False, True])
def test_lanes_give_what_each_gives_alone_with_one_program_for_all_counts(prioritized):
    lanes, rows = 3, 45
    step = functools.partial(cycle, LAYOUT, prioritized)
    single = jax.jit(step, donate_argnums=0)
    mapped = jax.jit(jax.vmap(step, in_axes=(0, None, 0, 0, 0)), donate_argnums=0)
    alone = [rings.init(LAYOUT, True, prioritized) for _ in range(lanes)]
    together = jax.tree.map(lambda *x: jnp.stack(x), *alone)
    for k, (stored, action) in enumerate(inputs(lanes, rows)):
        keys = jax.random.split(jax.random.key(k), lanes)
        together, out = mapped(together, jnp.int32(k), keys, stored, action)
        for lane in range(lanes):
            take = functools.partial(jax.tree.map, lambda x, lane=lane: x[lane])
            alone[lane], one = single(alone[lane], jnp.int32(k), keys[lane], take(stored), take(action))
            if k % 11 == 0 or k > 40:
                jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), take(out), one)
    alone = jax.tree.map(lambda *x: jnp.stack(x), *alone)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), together, alone)
    assert single._cache_size() == 1
    assert mapped._cache_size() == 1


@pytest.mark.parametrize(
    ("prioritized", "lanes", "scanned"), [(False, None, True), (True, None, False), (True, 2, True), (False, 2, False)]
)
def test_the_ring_is_written_in_place(prioritized, lanes, scanned):
    """No copy, select, scatter or convert as large as a part of the ring; all of it aliases what was donated."""
    layout = Layout(5003, 3, SHAPE, stack=4, n_step=3)
    function = functools.partial(cycle, layout, prioritized)
    (stored, action), key = inputs(1, 1)[0], jax.random.key(0)
    ring = jax.eval_shape(lambda: rings.init(layout, True, prioritized))
    stored, action = jax.tree.map(lambda x: x[0], (stored, action))
    if lanes:
        function = jax.vmap(function, in_axes=(0, None, None, 0, 0))
        widen = functools.partial(jax.tree.map, lambda x: jax.ShapeDtypeStruct((lanes, *x.shape), x.dtype))
        ring, stored, action = widen(ring), widen(stored), widen(action)

    def loop(ring, count, key, stored, action):
        def body(carry, key):
            ring, (_, seen, obs) = function(carry[0], carry[1], key, stored, action)
            return (ring, carry[1] + 1), (seen, obs)

        return jax.lax.scan(body, (ring, count), jax.random.split(key, 20))

    compiled = jax.jit(loop if scanned else function, donate_argnums=0).lower(ring, jnp.int32(0), key, stored, action)
    compiled = compiled.compile(AS_USERS)
    size = sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(ring))
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes >= size
    assert memory.temp_size_in_bytes < size / 2
    offences = []
    for line in compiled.as_text().splitlines():
        found = re.match(
            r"\s*(?:ROOT )?%\S+ = \w+\[([\d,]+)\]\S* (copy|select|scatter|convert|add|multiply|concatenate)\(", line
        )
        if found and np.prod([int(n) for n in found[1].split(",")]) >= 5003 * 3 * (lanes or 1):
            offences.append(line)
    # The one scatter there may be is of the priorities that an update writes.
    scatters = [line for line in offences if " scatter(" in line]
    assert len(scatters) <= prioritized
    assert offences == scatters


def test_a_donated_ring_is_gone_and_its_buffers_serve_again():
    layout = Layout(500, 3, SHAPE)
    ring = rings.init(layout)
    place = ring.frames.unsafe_buffer_pointer()
    (stored, action) = stream(0, 1, 3)[0]
    step = jax.jit(functools.partial(rings.append, layout), donate_argnums=0)
    after = step(ring, jnp.int32(0), stored)
    assert ring.frames.is_deleted()
    assert after.frames.unsafe_buffer_pointer() == place
    assert action.shape == (3,)


def test_strengths_may_differ_between_lanes():
    """Exponent and uniform share are traced: one program for all values."""
    rows = inputs(2, 30)
    ring = jax.tree.map(lambda x: jnp.stack([x, x]), rings.init(LAYOUT, True, True))
    how = sampling.Prioritized(jnp.asarray([0.0, 1.0]), jnp.asarray([0.0, 1.0]))
    step = jax.jit(jax.vmap(functools.partial(rings.append, LAYOUT), in_axes=(0, None, 0)))
    for k, (stored, _) in enumerate(rows):
        ring = step(ring, jnp.int32(k), stored)

    def learn(ring, key, how):
        draw = sampling.draw(LAYOUT, ring, jnp.int32(30), key, 16, how)
        return draw, sampling.update_priorities(LAYOUT, ring, draw, jnp.full(16, 9.0), how)

    draw, ring = jax.jit(jax.vmap(learn))(ring, jax.random.split(jax.random.key(0)), how)
    np.testing.assert_allclose(ring.priorities.peak, [1, 9])
    np.testing.assert_allclose(draw.probability, jnp.broadcast_to(1 / draw.size[:, None], (2, 16)), rtol=1e-5)
