"""Acting, lives, mitigations, heads, events and measurements of an agent on a small network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled_agents import (
    ACTIONS,
    AGENTS,
    ENVS,
    ROWS,
    SEED,
    SLOTS,
    SMALL,
    close,
    filled,
    made_of,
    softmax,
    some_batch,
    updated,
)

from plasticity.errors import UserError
from plasticity.heads import Categorical, HLGauss, Regression, TwoHot
from rl import learner
from rl.envs.base import Row
from rl.learner import Plan
from rl.measure import Measure, drawn_for, measure, unit
from rl.planning import plan_of
from rl.protocols import protocols
from rl.replay import ring as rings
from rl.replay.ring import Layout
from rl.run import Run
from rl.schedule import Schedule


def chosen(plan, method, state, obs, count, epsilon):
    program = jax.jit(functools.partial(learner.choose, plan))
    return program(method, SEED, state, obs, jnp.int32(count), jnp.float32(epsilon))


def test_greedy_actions_are_those_of_the_largest_value_and_go_into_the_replay():
    plan, method, state = filled(AGENTS["c51"])
    obs = jnp.array(np.random.default_rng(0).normal(0, 1, (ENVS, *plan.observation)), jnp.float32)
    after, actions = chosen(plan, method, state, obs, ROWS, 0.0)
    made = learner.parts(plan, method, SEED)
    flat = np.asarray(made.setting.network.apply(state.learner.variables, obs)[0])
    q = softmax(flat.reshape(ENVS, ACTIONS, 7)) @ np.linspace(-2, 2, 7)
    np.testing.assert_array_equal(actions, q.argmax(axis=1))
    np.testing.assert_array_equal(after.ring.action[ROWS % SLOTS], actions)


def test_random_actions_are_even_and_independent():
    plan, method, state = filled(AGENTS["dqn"])
    obs = jnp.zeros((ENVS, *plan.observation))
    many = jax.jit(jax.vmap(lambda c: learner.choose(plan, method, SEED, state, obs, c, jnp.float32(1.0))[1]))(
        jnp.arange(3000)
    )
    counts = np.bincount(np.asarray(many).reshape(-1), minlength=ACTIONS)
    assert counts.min() > 6000 / 3 - 5 * np.sqrt(6000 * 2 / 9)
    assert abs(np.mean(many[:, 0] == many[:, 1]) - 1 / 3) < 0.05  # environments
    assert abs(np.mean(many[1:] == many[:-1]) - 1 / 3) < 0.05  # steps
    half = jax.vmap(lambda c: learner.choose(plan, method, SEED, state, obs, c, jnp.float32(0.3))[1])(jnp.arange(3000))
    greedy = np.bincount(np.asarray(half).reshape(-1)).max() / 6000
    assert abs(greedy - (0.7 + 0.3 / 3)) < 0.03


def test_the_stack_of_frames_is_what_the_network_sees():
    plan, _, state = filled(AGENTS["dqn"])
    assert plan.observation == (6,)
    row = Row(*(jnp.asarray(a) for a in (np.full((ENVS, 3), 0.5, np.float32), np.zeros(ENVS, np.float32))),
              *(jnp.zeros(ENVS, bool),) * 2, jnp.zeros(ENVS, jnp.int32), jnp.array([True, False]))  # fmt: skip
    before = state.ring.frames[(ROWS - 1) % SLOTS]
    state = learner.take(plan, state, row, jnp.int32(ROWS))
    slots, mask = rings.window(plan.layout, state.ring, jnp.int32(ROWS + 1))
    obs = learner.assemble(plan, state.ring.frames, slots, None, mask)
    np.testing.assert_array_equal(obs[0], [0, 0, 0, 0.5, 0.5, 0.5])
    np.testing.assert_array_equal(obs[1], [*np.asarray(before[1]), 0.5, 0.5, 0.5])


def test_lives_are_remembered_from_row_to_row():
    plan, method = made_of(f"dqn({SMALL})")
    protocol = protocols.members()["plain"](stack=2, life_loss="discount")
    plan = Plan(plan.agent, protocol, plan.layout, ACTIONS)
    state = learner.start(plan, method, SEED)
    terms = []
    for k, lives in enumerate([3, 3, 2, 2, 1, 3]):
        first = np.full(ENVS, k in (0, 5))
        row = Row(np.zeros((ENVS, 3), np.float32), np.zeros(ENVS, np.float32), np.zeros(ENVS, bool),
                  np.zeros(ENVS, bool), np.full(ENVS, lives, np.int32), first)  # fmt: skip
        state = learner.take(plan, state, row, jnp.int32(k))
        terms.append(bool(state.ring.flags[k, 0] & rings.TERM))
    assert terms == [False, False, True, False, True, False]


ALL = "layer_norm+crelu+redo(every=2)+l2_init+weight_decay"


@pytest.mark.parametrize(
    ("agent", "mitigation"),
    [*(("dqn", one) for one in ("layer_norm", "crelu", "redo(every=2)", "weight_decay")), ("rainbow", ALL)],
)
def test_mitigations_run(agent, mitigation):
    text = f"rainbow({SMALL}, atoms=7)" if agent == "rainbow" else AGENTS["dqn"]
    plan, method, state = filled(text, mitigation, "adam(0.01)")
    after = updated(plan, method, state, 0, 3)
    for leaf in jax.tree.leaves(after.learner.variables):
        assert np.isfinite(leaf).all()
    assert not np.allclose(*(jax.tree.leaves(s.learner.variables)[1] for s in (state, after)))
    names = set(state.learner.variables["params"])
    assert ("norm_hidden_0" in names) == ("layer_norm" in mitigation)


@pytest.mark.parametrize(
    ("agent", "mitigation", "head"),
    [
        ("dqn", "none", Regression(-2.0, 2.0)),
        ("c51", "none", Categorical(7, -2.0, 2.0)),
        ("dqn", "two_hot(21)", TwoHot(21, -2.0, 2.0)),
        ("double", "hl_gauss(21, low=-5)", HLGauss(21, -5.0, 2.0)),
    ],
)
def test_heads(agent, mitigation, head):
    plan, method, state = filled(AGENTS[agent], mitigation)
    assert learner.parts(plan, method, SEED).head == head
    after = updated(plan, method, state)
    assert np.isfinite(after.sums).all()
    assert after.sums[0] >= 0
    assert after.sums[1] > 0


@pytest.mark.parametrize("head", ["two_hot", "hl_gauss"])
@pytest.mark.parametrize("agent", ["c51", "rainbow"])
def test_two_distributions_are_refused_before_anything_is_computed(agent, head):
    run = Run.of("probe_value", agent, head)
    with pytest.raises(UserError, match=f"{head} needs .* scalar values"):
        plan_of(run, 1)


def test_what_a_run_is_planned_for():
    schedule = Schedule(frames=400, iteration_frames=400, envs=5)
    run = Run.of("fake", "rainbow(replay_steps=1000, min_replay_steps=100, n_step=4, gamma=0.9)", schedule=schedule)
    plan, held = plan_of(run, 2)
    assert plan.layout == Layout(200, 5, (84, 84, 1), "uint8", 4, 4, 0.9)
    assert (plan.actions, plan.observation) == (4, (84, 84, 4))
    assert held.bytes > 2 * 1000 * 84 * 84
    with pytest.raises(UserError, match="min_replay_steps must be at least 40"):
        plan_of(Run.of("fake", "rainbow(replay_steps=1000, min_replay_steps=39, n_step=4)", schedule=schedule), 1)
    with pytest.raises(UserError, match=r"multiple of envs x frames a step.*nearest is 400"):
        plan_of(Run.of("fake", "dqn", schedule=Schedule(frames=402, iteration_frames=402, envs=5)), 1)


def test_discounts_and_steps_reach_the_batch():
    plan, _, state = filled(f"dqn({SMALL}, n_step=3)")
    key = learner.replay_key(SEED, 0)
    drawn = learner.batch_of(plan, state.ring, state.ring.frames, jnp.int32(ROWS), key, 64, 1.0).drawn
    assert {round(float(d), 4) for d in drawn.discount} == {0.0, round(0.8**3, 4)}


def test_events_act_on_the_learner_and_the_target_follows():
    plan, method, state = filled(AGENTS["dqn"], "shrink_perturb(shrink=0.25, perturb=0)", "adam(0.01)")
    after = learner.event(plan, method, SEED, state, some_batch(plan, state), jnp.int32(1))
    close(after.learner.variables, jax.tree.map(lambda p: 0.25 * p, state.learner.variables))
    jax.tree.map(np.testing.assert_array_equal, after.target, after.learner.variables)
    jax.tree.map(np.testing.assert_array_equal, after.ring, state.ring)


def test_a_full_reset_is_fresh_each_time():
    plan, method, state = filled(AGENTS["dqn"], "full_reset", "adam(0.01)")
    state = updated(plan, method, state, 0, 2)
    batch = some_batch(plan, state)
    once, twice = (learner.event(plan, method, SEED, state, batch, jnp.int32(n)) for n in (1, 2))
    for leaf in jax.tree.leaves(once.learner.opt_state):
        np.testing.assert_array_equal(leaf, 0)
    kernels = [s.learner.variables["params"]["hidden_0"]["kernel"] for s in (state, once, twice)]
    assert not any(np.allclose(a, b) for a, b in ((kernels[0], kernels[1]), (kernels[1], kernels[2])))
    assert learner.with_events(method)
    assert not learner.with_events(filled(AGENTS["dqn"], "redo(every=2)", "adam(0.01)")[1])


def test_redo_recycles_a_dead_unit_when_it_is_due():
    plan, method, state = filled(AGENTS["dqn"], "redo(every=5)", "adam(0.01)")
    params = jax.tree.map(lambda p: p, state.learner.variables["params"])
    params["hidden_1"]["bias"] = params["hidden_1"]["bias"].at[4].set(-1e4)
    state = state._replace(learner=state.learner._replace(variables={"params": params}))
    early = updated(plan, method, state, 3).learner.variables["params"]
    assert early["hidden_1"]["bias"][4] < -9e3
    due = updated(plan, method, state, 4).learner.variables["params"]
    assert due["hidden_1"]["bias"][4] == 0
    np.testing.assert_array_equal(due["output"]["kernel"][4], 0)


def test_a_measurement_by_hand_and_its_units():
    plan, method, state = filled(AGENTS["c51"], "layer_norm", "adam(0.01)")
    drawn = drawn_for(plan, "reference", SEED, state, jnp.int32(ROWS), 0)
    assert drawn.slot.shape == (16,)
    obs = learner.assemble(plan, state.ring.frames, drawn.obs_slots, drawn.env, drawn.obs_mask)
    state = state._replace(reference=obs)
    batch = learner.batch_of(plan, state.ring, state.ring.frames, jnp.int32(ROWS), learner.replay_key(SEED, 0), 6, 1.0)
    found = jax.jit(functools.partial(measure, plan, Measure(ranks=False)))(method, SEED, state, batch, jnp.int32(0))
    for name in found:
        assert unit(name.partition("/")[0])
    apply = learner.parts(plan, method, SEED).setting.network.apply

    def q(variables):
        flat = np.asarray(apply(variables, obs)[0], np.float64)
        return softmax(flat.reshape(16, ACTIONS, 7)) @ np.linspace(-2, 2, 7)

    made = learner.parts(plan, method, SEED)
    after = learner.update(plan, made, SEED, state, batch, jnp.int32(0))
    old, new = q(state.learner.variables), q(after.learner.variables)
    assert float(found["reference_value"]) == pytest.approx(old.max(axis=1).mean(), rel=1e-4)
    assert float(found["policy_churn"]) == pytest.approx(np.mean(old.argmax(axis=1) != new.argmax(axis=1)))
    assert float(found["value_churn"]) == pytest.approx(np.abs(new.max(axis=1) - old.max(axis=1)).mean(), rel=1e-2)
    for expected in ("dead_units/hidden_0", "dead_units/hidden_1", "weight_norm"):
        assert expected in found


def test_measuring_points():
    due = Measure(every_updates=100).due
    points = [n for n in range(1, 350) if due(n - 1, n)]
    assert points == [1, 2, 4, 8, 16, 32, 64, 100, 200, 300]
    assert due(97, 103)
    assert not due(100, 100)
    assert not Measure(every_updates=0).due(0, 10**6)
    assert [n for n in range(3, 40, 3) if Measure(every_updates=10).due(n - 3, n)] == [3, 6, 9, 12, 21, 30]
