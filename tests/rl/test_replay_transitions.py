"""The ring against episodes kept as plain lists: starts, returns, stacks, masks, windows, restarts, wrap-around."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.errors import UserError
from rl.replay import ring as rings
from rl.replay import sampling
from rl.replay.host import HostFrames
from rl.replay.ring import Layout, Stored

SHAPE = (2, 1, 2)


def stream(seed, rows, envs, life_loss="discount", dtype=np.uint8):
    """Rows of games that end, are cut off, lose lives and are restarted at random, as (Stored, actions) a row."""
    rng = np.random.default_rng(seed)
    first, out = np.ones(envs, bool), []
    for k in range(rows):
        if k and rng.random() < 0.04:  # A restart comes in the middle of episodes, of all or of some.
            first = first | (rng.random(envs) < rng.choice([0.5, 1.0]))
        over = ~first & (rng.random(envs) < 0.08)
        cut = ~first & ~over & (rng.random(envs) < 0.08)
        life = ~first & ~over & ~cut & (rng.random(envs) < 0.1)
        fresh = first | (life if life_loss == "episode" else False)
        frame = rng.integers(1, 256, (envs, *SHAPE)).astype(dtype)
        reward = np.where(first, 0, rng.normal(size=envs)).astype(np.float32)
        stored = Stored(frame, reward, over | life, over | cut, first, np.broadcast_to(fresh, (envs,)))
        out.append((stored, rng.integers(0, 5, envs)))
        first = over | cut
    return out


class Episodes:
    """What the ring should know, from whole episodes: nothing here has slots, flags of slots or masks."""

    def __init__(self, layout, rows):
        self.layout, self.total, self.episodes = layout, len(rows), []
        for env in range(layout.envs):
            for k, (stored, action) in enumerate(rows):
                if k == 0 or stored.first[env]:
                    self.episodes.append((env, k, []))
                step = (stored.frame[env], stored.reward[env], stored.term[env], stored.fresh[env], action[env])
                self.episodes[-1][2].append((*step, stored.stop[env]))

    def observation(self, steps, i):
        """The last frames of the current life up to step i, with zeros in front."""
        life = []
        for frame, _, _, fresh, *_ in steps[: i + 1]:
            life = [frame] if fresh else [*life, frame]
        life = life[-self.layout.stack :]
        padded = [np.zeros_like(steps[0][0])] * (self.layout.stack - len(life)) + life
        return np.concatenate(padded, axis=-1)

    def transitions(self):
        """{(row, env): (observation, action, return, discount, next observation)} that may be drawn."""
        layout, out = self.layout, {}
        for env, begin, steps in self.episodes:
            running = begin + len(steps) == self.total and not steps[-1][5]
            for i in range(len(steps) - (0 if running else 1)):
                row = begin + i
                if row + layout.n_step >= self.total or row - layout.stack + 1 < self.total - layout.slots:
                    continue
                total, discount, j = 0.0, 1.0, i
                while j < min(i + layout.n_step, len(steps) - 1):
                    j += 1
                    total += discount * float(steps[j][1])
                    discount *= layout.gamma
                    if steps[j][2]:
                        discount = 0.0
                        break
                seen = self.observation(steps, i), steps[i][4]
                out[row, env] = (*seen, total, discount, self.observation(steps, j))
        return out


@functools.cache
def program(layout):
    """append and set_action, compiled with the ring donated."""

    def step(ring, count, stored, action):
        ring = rings.append(layout, ring, count, stored)
        return rings.set_action(layout, ring, count + 1, action)

    return jax.jit(step, donate_argnums=0)


def fill(layout, rows, prioritized=False, on_device=True):
    ring = rings.init(layout, on_device, prioritized)
    for k, (stored, action) in enumerate(rows):
        ring = program(layout)(ring, jnp.int32(k), stored, action)
    return ring


draw_program = jax.jit(sampling.draw, static_argnums=(0, 4))
assemble = jax.jit(rings.assemble, static_argnums=4)


def drawn(layout, ring, count, how, batch=1024, seed=0):
    return draw_program(layout, ring, count, jax.random.key(seed), batch, how)


def observations(layout, ring, draw):
    obs = assemble(ring.frames, draw.obs_slots, draw.env, draw.obs_mask, layout.frame_shape)
    return obs, assemble(ring.frames, draw.next_slots, draw.env, draw.next_mask, layout.frame_shape)


def compare(layout, rows, how):
    """Draw until everything has come up, and look each draw up in the reference."""
    expected = Episodes(layout, rows).transitions()
    ring, count = fill(layout, rows, isinstance(how, sampling.Prioritized)), len(rows)
    assert int(ring.starts) == len(expected)
    if not expected:
        return
    draw = drawn(layout, ring, jnp.int32(count), how)
    obs, following = map(np.asarray, observations(layout, ring, draw))
    assert obs.dtype == layout.dtype
    draw = jax.tree.map(np.asarray, draw)
    slot, env = draw.slot, draw.env
    row = count - 1 - (count - 1 - slot) % layout.slots
    assert set(zip(row.tolist(), env.tolist(), strict=True)) == set(expected)
    for b in np.unique(slot * layout.envs + env, return_index=True)[1]:
        seen, action, total, discount, after = expected[row[b], env[b]]
        np.testing.assert_array_equal(obs[b], seen)
        assert draw.action[b] == action
        np.testing.assert_allclose(draw.reward[b], total, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(draw.discount[b], discount, rtol=1e-6)
        if discount:  # Past a lost life the next observation has no say.
            np.testing.assert_array_equal(following[b], after)
    np.testing.assert_allclose(draw.probability, 1 / len(expected), rtol=1e-5)


@pytest.mark.parametrize(("n_step", "stack", "slots"), [(1, 1, 9), (1, 4, 12), (3, 4, 16), (10, 1, 21)])
def test_every_transition_and_no_other_is_drawn(n_step, stack, slots):
    layout = Layout(slots, 3, SHAPE, stack=stack, n_step=n_step, gamma=0.9)
    for seed, rows in enumerate([n_step, n_step + 1, slots - 1, slots, slots + 1, 2 * slots + 3, 61, 62]):
        for life_loss in ("discount", "episode"):
            compare(layout, stream(seed, rows, 3, life_loss), sampling.Uniform())


@pytest.mark.parametrize(("n_step", "stack", "slots"), [(3, 1, 11), (10, 4, 24)])
def test_new_priorities_are_equal_and_exactly_on_the_transitions(n_step, stack, slots):
    layout = Layout(slots, 3, SHAPE, stack=stack, n_step=n_step, gamma=0.9, block=6)
    for seed, rows in enumerate([n_step + 1, slots, slots + 1, 63]):
        compare(layout, stream(seed, rows, 3), sampling.Prioritized(0.5, 0.0))


def test_the_smallest_ring_holds_one_row_of_transitions():
    layout = Layout(7, 3, SHAPE, stack=4, n_step=3)
    for rows in (4, 7, 8, 22):
        compare(layout, stream(rows, rows, 3), sampling.Uniform())
    with pytest.raises(UserError, match=r"6 slots.*allowed: 7 or more"):
        Layout(6, 3, SHAPE, stack=4, n_step=3)


@pytest.mark.parametrize("stack", [1, 4])
def test_the_window_is_the_newest_observation(stack):
    layout = Layout(9, 3, SHAPE, stack=stack)
    rows, ring = stream(5, 40, 3, "episode"), rings.init(layout)
    window = jax.jit(rings.window, static_argnums=0)
    for k, (stored, action) in enumerate(rows):
        ring = program(layout)(ring, jnp.int32(k), stored, action)
        slots, mask = window(layout, ring, jnp.int32(k + 1))
        seen = np.asarray(assemble(ring.frames, slots, jnp.arange(3), mask, SHAPE))
        reference = Episodes(layout, rows[: k + 1])
        newest = {env: steps for env, _, steps in reference.episodes}
        for env in range(3):
            np.testing.assert_array_equal(seen[env], reference.observation(newest[env], len(newest[env]) - 1))


def test_a_hand_worked_stream():
    """Frames 1 2 3 | 4 5 6 7, a life lost at 2, game over at 3: starts are 1, 2, 4, 5; all values by hand."""
    layout = Layout(8, 1, (1,), stack=2, n_step=2, gamma=0.5)
    reward, term, stop, first = (
        [0, 1, 2, 0, 8, 16, 32],
        [0, 1, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0, 0],
        [1, 0, 0, 1, 0, 0, 0],
    )
    ring = rings.init(layout)
    for k in range(7):
        flags = [np.array([bool(x[k])]) for x in (term, stop, first, first)]
        stored = Stored(np.array([[k + 1]], np.uint8), np.array([reward[k]], np.float32), *flags)
        ring = program(layout)(ring, jnp.int32(k), stored, np.array([k]))
    draw = drawn(layout, ring, jnp.int32(7), sampling.Uniform(), 64)
    obs, following = observations(layout, ring, draw)
    # start -> (observation, return, discount, next observation)
    by_hand = {
        0: ([0, 1], 1, 0, [1, 2]),
        1: ([1, 2], 2, 0, [2, 3]),
        3: ([0, 4], 8 + 0.5 * 16, 0.25, [5, 6]),
        4: ([4, 5], 16 + 0.5 * 32, 0.25, [6, 7]),
    }
    assert set(np.asarray(draw.slot).tolist()) == set(by_hand)
    for b, slot in enumerate(np.asarray(draw.slot)):
        got = [x[b].tolist() for x in (obs, draw.reward, draw.discount, following)]
        assert got == list(by_hand[int(slot)])
        assert int(draw.action[b]) == slot


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_frames_on_the_host_give_what_frames_on_the_device_give(dtype):
    layout = Layout(20, 3, SHAPE, dtype=dtype, stack=4, n_step=3)
    lanes = [stream(seed, 53, 3, "episode", dtype) for seed in (1, 2)]
    host = HostFrames(layout, lanes=2)
    for k in range(53):
        host.append(k, np.stack([rows[k][0].frame for rows in lanes]))
    device = [fill(layout, rows) for rows in lanes]
    without = [fill(layout, rows, on_device=False) for rows in lanes]
    draws = [drawn(layout, ring, jnp.int32(53), sampling.Uniform(), 40) for ring in device]
    for draw, ring in zip(draws, without, strict=True):
        assert ring.frames is None
        jax.tree.map(np.testing.assert_array_equal, draw, drawn(layout, ring, jnp.int32(53), sampling.Uniform(), 40))
    both = jax.tree.map(lambda *x: jnp.stack(x), *draws)
    for slots, mask, which in ((both.obs_slots, both.obs_mask, 0), (both.next_slots, both.next_mask, 1)):
        got = host.gather(slots, both.env, mask)
        want = [observations(layout, ring, draw)[which] for ring, draw in zip(device, draws, strict=True)]
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, np.stack(want))
