"""Agents side by side: each as if alone, frames on the host or the device, one program each, nothing large copied."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import AS_USERS
from small_agents import NO_MEASURE

from rl import learner
from rl.envs.base import Row
from rl.lanes import Lanes
from rl.learner import Plan
from rl.program import programs, stacked
from rl.protocols import protocols
from rl.replay.ring import Layout
from rl.run import Run

ENVS, ACTIONS, SHAPE = 2, 3, (2, 2, 1)
AGENT = "dopamine_rainbow(batch_size=8, atoms=7, value_max=2, target_updates=5, min_replay_steps=16, replay_steps=64)"
STRENGTHS = ((3, 1e-3, 0.0), (11, 1e-2, 0.1), (12, 3e-3, 0.02))
"""Seed, learning rate and l2 of each lane."""


def runs(strengths=STRENGTHS, agent=AGENT):
    return [Run.of("fake", agent, f"l2({b})", s, network="mlp(8, 2)", optimizer=f"adam({a})") for s, a, b in strengths]


def lanes_of(chosen, on_device=True, slots=40, shape=SHAPE):
    agent = chosen[0].agent
    layout = Layout(slots, ENVS, shape, "uint8", 4, agent.n_step, agent.gamma)
    plan = Plan(agent, protocols.members()["atari100k"](), layout, ACTIONS, reference=8, frames_on_device=on_device)
    return Lanes(plan, NO_MEASURE, [r.method for r in chosen], [r.seed for r in chosen])


def rows(seed, count, poison=False):
    """Rows of one lane's environments, with ends, lost lives and truncations; the same whatever the actions."""
    draw = np.random.default_rng(seed)
    ended, found = np.ones(ENVS, bool), []
    for _ in range(count):
        first = ended
        over, cut = draw.random((2, ENVS)) < 0.1
        ended = (over | cut) & ~first
        reward = np.where(first, 0, draw.normal(0, 1, ENVS)).astype(np.float32)
        found.append(
            Row(
                frame=draw.integers(0, 256, (ENVS, *SHAPE), np.uint8),
                reward=np.full(ENVS, np.nan, np.float32) if poison else reward,
                over=over & ~first,
                truncated=cut & ~over & ~first,
                lives=draw.integers(1, 4, ENVS).astype(np.int32),
                first=first,
            )
        )
    return found


def played(lanes, streams, updates=2):
    """Act on rows, learn after each from the tenth on; all actions `[rows, lanes * envs]`."""
    actions, made = [], 0
    for k, row in enumerate(zip(*streams, strict=True)):
        joined = Row(*(np.concatenate(parts) for parts in zip(*row, strict=True)))
        actions.append(np.asarray(lanes.act(joined, 0.3)))
        if k >= 10:
            lanes.learn(made, updates, 0.5)
            made += updates
    return np.array(actions)


def close(a, b, rtol=2e-3, atol=2e-4):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol), a, b)


STREAMS = [rows(seed, 26) for seed in range(3)]


@pytest.fixture(scope="module")
def group():
    """Three lanes after 26 rows and 32 updates, their actions, and how many programs were compiled for it."""
    lanes = lanes_of(runs())
    actions = played(lanes, STREAMS)
    return lanes, actions


def test_a_lane_is_what_it_is_alone(group):
    lanes, actions = group
    for i in range(3):
        alone = lanes_of(runs()[i : i + 1])
        own = played(alone, STREAMS[i : i + 1])
        np.testing.assert_array_equal(actions[:11, ENVS * i : ENVS * (i + 1)], own[:11])
        one = jax.tree.map(lambda leaf, i=i: leaf[i], lanes.state)
        close(one.learner.variables, jax.tree.map(lambda leaf: leaf[0], alone.state.learner.variables))
        for name in ("frames", "flags", "reward"):
            np.testing.assert_array_equal(getattr(one.ring, name), getattr(alone.state.ring, name)[0])


def test_the_replay_holds_the_rows_of_each_lane(group):
    ring, count = group[0].state.ring, group[0].count
    assert count == 26
    for lane, stream in enumerate(STREAMS):
        for k, row in enumerate(stream):
            np.testing.assert_array_equal(ring.frames[lane, k], row.frame.reshape(ENVS, -1))
            np.testing.assert_array_equal(ring.action[lane, k], group[1][k, ENVS * lane : ENVS * (lane + 1)])
            np.testing.assert_allclose(ring.reward[lane, k], np.clip(row.reward, -1, 1))
        np.testing.assert_array_equal(ring.frames[lane, count:], 0)


def test_lanes_differ_by_seed_and_by_strength(group):
    kernels = group[0].state.learner.variables["params"]["hidden_0"]["kernel"]
    assert not np.allclose(kernels[0], kernels[1])
    same_seed = lanes_of(runs(((3, 1e-3, 0.0), (3, 1e-3, 0.5), (3, 1e-2, 0.0))))
    actions = played(same_seed, [STREAMS[0]] * 3)
    np.testing.assert_array_equal(actions[:11, :2], actions[:11, 2:4])  # the same until they learn
    one, penalised, faster = same_seed.state.learner.variables["params"]["hidden_0"]["kernel"]
    assert np.linalg.norm(penalised) < np.linalg.norm(one)
    assert not np.allclose(one, faster)


def test_each_program_is_compiled_once(group):
    lanes = group[0]
    sizes = {name: getattr(lanes.programs, name)._cache_size() for name in ("start", "act", "learn")}
    before = dict(sizes)
    again = lanes_of(runs(((5, 1e-4, 0.3), (6, 1e-4, 0.2), (7, 1e-4, 0.1))))
    played(again, [rows(9, 14)] * 3, updates=3)  # other strengths, another number of updates
    assert again.programs is lanes.programs
    assert {name: getattr(lanes.programs, name)._cache_size() for name in sizes} == before
    assert before["act"] <= 2  # one for three lanes and one for a single one


def test_what_is_no_number_stays_in_its_lane(group):
    lanes, actions = group
    poisoned = lanes_of(runs())
    found = played(poisoned, [STREAMS[0], rows(1, 26, poison=True), STREAMS[2]])
    kernels = poisoned.state.learner.variables["params"]["hidden_0"]["kernel"]
    assert np.isnan(kernels[1]).any()
    for i in (0, 2):
        close(kernels[i], lanes.state.learner.variables["params"]["hidden_0"]["kernel"][i])
        np.testing.assert_array_equal(found[:11, 2 * i : 2 * i + 2], actions[:11, 2 * i : 2 * i + 2])
    sums = poisoned.read_sums(32)
    np.testing.assert_array_equal(np.isnan(sums["loss"]), [False, True, False])
    assert np.asarray(poisoned.state.ring.priorities.leaf)[1].min() >= 0  # drawing goes on


def test_frames_on_the_host_give_the_same(group):
    lanes, actions = group
    host = lanes_of(runs(), on_device=False)
    assert host.state.ring.frames is None
    own = played(host, STREAMS)
    np.testing.assert_array_equal(own[:11], actions[:11])
    close(host.state.learner.variables, lanes.state.learner.variables)
    close(host.state.target, lanes.state.target)
    close(host.state.ring.priorities, lanes.state.ring.priorities)
    assert host.frames is not None
    np.testing.assert_array_equal(host.frames.frames, lanes.state.ring.frames)
    host.draw_reference(0)
    lanes.draw_reference(0)
    np.testing.assert_array_equal(host.state.reference, lanes.state.reference)


def test_sums_are_means_since_they_were_last_read(group):
    lanes = lanes_of(runs())
    played(lanes, STREAMS)
    summed = np.asarray(group[0].state.sums)
    found = lanes.read_sums(32)
    for k, name in enumerate(("loss", "td_error", "q_mean")):
        np.testing.assert_allclose(found[name], summed[:, k] / 32, rtol=1e-3)
    np.testing.assert_array_equal(lanes.read_sums(32)["loss"], 0)


def test_an_emptied_replay_keeps_the_learner(group):
    lanes = lanes_of(runs())
    played(lanes, STREAMS)
    before = jax.tree.map(np.asarray, lanes.state.learner)
    lanes.forget()
    jax.tree.map(np.testing.assert_array_equal, lanes.state.learner, before)
    assert lanes.count == 0
    np.testing.assert_array_equal(lanes.state.ring.starts, 0)
    # ... and what is played next is drawn as from a new one.
    anew = lanes_of(runs())
    same = jax.tree.map(jnp.copy, (anew.state.learner, anew.state.target))  # programs take the state away
    lanes.state = lanes.state._replace(learner=same[0], target=same[1])
    drawn = []
    for group in (lanes, anew):
        played(group, STREAMS, updates=0)
        drawn.append(group.programs.draw(group.seeds, group._light, np.int32(group.count), np.int32(3), np.float32(1)))
    close(*drawn)


@pytest.mark.parametrize("name", ["act", "learn"])
def test_nothing_as_large_as_the_frames_is_copied(name):
    """In the compiled program, for one lane and for two."""
    slots, shape = 5003, (16, 16, 1)
    for count in (1, 2):
        chosen = runs(STRENGTHS[:count])
        agent = chosen[0].agent
        layout = Layout(slots, ENVS, shape, "uint8", 4, agent.n_step, agent.gamma)
        plan = Plan(agent, protocols.members()["nature"](), layout, ACTIONS, reference=8)
        found = programs(plan, NO_MEASURE)
        method, seeds = stacked([r.method for r in chosen]), jnp.zeros(count, jnp.int32)
        state = jax.eval_shape(found.start, method, seeds)
        zero = np.int32(0)
        if name == "act":
            one = rows(0, 1)[0]
            row = Row(*(np.stack([a] * count) for a in one))._replace(frame=np.zeros((count, ENVS, *shape), np.uint8))
            given = method, seeds, state, row, zero, np.float32(0)
        else:
            light, numbers = learner.detached(state), (zero, zero, zero, np.float32(0), np.float32(0))
            given = method, seeds, state.ring.frames, light, *numbers
        compiled = getattr(found, name).lower(*given).compile(AS_USERS)
        size = count * slots * ENVS * 256
        large = [line for line in compiled.as_text().splitlines() if _copies(line) and _elements(line) >= size / 2]
        assert large == []
        memory = compiled.memory_analysis()
        assert memory.temp_size_in_bytes < size / 2
        if name == "act":
            assert memory.alias_size_in_bytes >= size


def _copies(line):
    return re.search(r"= \S+ (copy|select|scatter|convert|concatenate|broadcast|transpose)\(", line)


def _elements(line):
    found = re.search(r"= \w+\[([\d,]+)\]", line)
    return np.prod([int(size) for size in found[1].split(",")]) if found else 0
