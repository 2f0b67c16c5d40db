"""Updates against a rewrite from the formulas, on a small network; targets, noise, events, acting, mitigations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.errors import UserError
from plasticity.heads import Categorical, HLGauss, Regression, TwoHot
from rl import learner
from rl.envs.base import Row
from rl.learner import Plan
from rl.measure import Measure, drawn_for, measure, unit
from rl.planning import plan_of
from rl.protocols import protocols
from rl.replay import ring as rings
from rl.replay.ring import Layout, Stored
from rl.run import Run
from rl.schedule import Schedule

ENVS, ACTIONS, SLOTS, SEED, ROWS = 2, 3, 40, 5, 30
LR, BETA = 0.1, 0.5
SMALL = "replay_steps=80, min_replay_steps=20, batch_size=6, value_max=2, gamma=0.8"


def made_of(agent, mitigations="none", optimizer=f"sgd({LR})", stack=2):
    """Plan and method of an agent on frames of three numbers."""
    run = Run.of("probe_value", agent, mitigations, SEED, network="mlp(8, 2)", optimizer=optimizer)
    a = run.agent
    layout = Layout(SLOTS, ENVS, (3,), "float32", stack, a.n_step, a.gamma)
    return Plan(a, protocols.members()["plain"](stack=stack), layout, ACTIONS, reference=16), run.method


@functools.cache
def filled(agent, mitigations="none", optimizer=f"sgd({LR})"):
    """Plan, method and an agent's state after `ROWS` rows, its target and priorities moved away from the start."""
    plan, method = made_of(agent, mitigations, optimizer)
    state = jax.jit(functools.partial(learner.start, plan))(method, SEED)
    ring = state.ring
    draw = np.random.default_rng(1)
    append = _appending(plan.layout)
    for k in range(ROWS):
        first, over = (np.full(ENVS, k % 7 == at) for at in (0, 6))
        frame, reward = draw.normal(0, 1, (ENVS, 3)), np.where(first, 0, draw.normal(0, 1, ENVS))
        kept = Stored(*map(jnp.array, (frame.astype(np.float32), reward, over, over, first, first)))
        ring = append(ring, jnp.int32(k), kept, jnp.array(draw.integers(0, ACTIONS, ENVS)))
    moved = jax.tree.map(lambda p: p + 0.3 * draw.normal(0, 1, p.shape).astype(np.float32), state.target)
    away = jax.tree.map(lambda p: p + 0.2 * draw.normal(0, 1, p.shape).astype(np.float32), state.learner.variables)
    if ring.priorities is not None:
        leaf = np.where(ring.priorities.leaf > 0, draw.uniform(0.1, 3, ring.priorities.leaf.shape), 0).astype("float32")
        ring = ring._replace(priorities=ring.priorities._replace(leaf=jnp.array(leaf), sums=jnp.array(leaf.sum(1))))
    learned = state.learner._replace(variables=away)
    return plan, method, state._replace(target=moved, learner=learned, ring=ring)


@functools.cache
def _appending(layout):
    """Append a row and its actions."""

    def append(ring, count, kept, actions):
        return rings.set_action(layout, rings.append(layout, ring, count, kept), count + 1, actions)

    return jax.jit(append)


def updated(plan, method, state, number=0, updates=1, beta=BETA):
    """The state after updates `number ...` on the ring as it is."""
    light, frames = learner.detached(state), state.ring.frames
    numbers = jnp.int32(ROWS), jnp.int32(number), jnp.int32(updates), jnp.float32(beta)
    program = _program(plan)
    return learner.attached(program(method, SEED, frames, light, *numbers), frames)


@functools.cache
def _program(plan):
    return jax.jit(functools.partial(learner.learn, plan))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def rewrite(plan, method, state, number, penalty=lambda params, initial: 0.0):
    """(new parameters, |TD errors|, losses, batch) of an update by gradient descent, from the formulas."""
    agent = plan.agent
    made = learner.parts(plan, method, SEED)
    batch = learner.batch_of(
        plan,
        state.ring,
        state.ring.frames,
        jnp.int32(ROWS),
        learner.replay_key(SEED, number),
        agent.batch_size,
        BETA,
    )
    drawn = batch.drawn
    apply = made.setting.network.apply

    def forward(variables, obs):
        return apply(variables, obs)[0].reshape(len(obs), ACTIONS, -1)

    atoms = np.linspace(-agent.value_max, agent.value_max, max(agent.atoms, 1))
    target = np.asarray(forward(state.target, batch.next_obs), np.float64)
    chooser = np.asarray(forward(state.learner.variables, batch.next_obs)) if agent.double else target
    size, rows = agent.batch_size, np.arange(agent.batch_size)
    means = softmax(chooser) @ atoms if agent.atoms else chooser[..., 0]
    following = target[rows, means.argmax(axis=1)]
    reward, discount = np.asarray(drawn.reward), np.asarray(drawn.discount)
    y = reward + discount * (softmax(following) @ atoms if agent.atoms else following[:, 0])
    code = np.zeros((size, agent.atoms))
    for i in range(size if agent.atoms else 0):
        for p, atom in zip(softmax(following[i]), atoms, strict=True):
            place = np.clip(reward[i] + discount[i] * atom, atoms[0], atoms[-1]) - atoms[0]
            place /= atoms[1] - atoms[0]
            low = min(int(place), agent.atoms - 2)
            code[i, low] += p * (low + 1 - place)
            code[i, low + 1] += p * (place - low)
    weight = np.ones(size)
    if agent.priority != "none":
        leaf = np.asarray(state.ring.priorities.leaf).reshape(-1)
        share = agent.uniform_share
        probability = (1 - share) * leaf / leaf.sum() + share / (leaf > 0).sum() * (leaf > 0)
        weight = ((leaf > 0).sum() * probability[np.asarray(drawn.slot) * ENVS + np.asarray(drawn.env)]) ** -BETA
        weight /= weight.max()

    def each(params):
        chosen = forward({"params": params}, batch.obs)[rows, drawn.action]
        if agent.atoms:
            return -jnp.sum(code * jax.nn.log_softmax(chosen), axis=1)
        error = chosen[:, 0] - y
        if agent.loss == "mse":
            return error**2
        return jnp.where(jnp.abs(error) <= 1, error**2 / 2, jnp.abs(error) - 0.5)

    def total(params):
        return jnp.mean(weight * each(params)) + penalty(params, made.initial["params"])

    params = state.learner.variables["params"]
    grads = jax.grad(total)(params)
    norm = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(grads)))
    scale = min(1.0, agent.max_gradient_norm / norm) if agent.max_gradient_norm else 1.0
    chosen = np.asarray(forward({"params": params}, batch.obs))[rows, drawn.action]
    q = softmax(chosen) @ atoms if agent.atoms else chosen[:, 0]
    new = jax.tree.map(lambda p, g: p - LR * scale * g, params, grads)
    return new, np.abs(q - y), np.asarray(each(params)), batch, norm


def close(a, b, rtol=1e-4, atol=1e-5):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol), a, b)


AGENTS = {
    "dqn": f"dqn({SMALL})",
    "mse": f"dopamine_dqn({SMALL})",
    "double": f"double_dqn({SMALL})",
    "dueling": f"double_dqn({SMALL}, dueling=true, n_step=3)",
    "prioritized": f"prioritized({SMALL}, uniform_share=0.2)",
    "c51": f"c51({SMALL}, atoms=7, max_gradient_norm=0.05)",
    "rainbow": f"rainbow({SMALL}, atoms=7, noise=0)",
    "root": f"dopamine_rainbow({SMALL}, atoms=7)",
}


@pytest.mark.parametrize("name", AGENTS)
def test_an_update_is_that_of_a_rewrite(name):
    plan, method, state = filled(AGENTS[name])
    new, error, loss, batch, norm = rewrite(plan, method, state, 3)
    after = updated(plan, method, state, 3)
    close(after.learner.variables["params"], new)
    found = learner.outputs(plan, learner.parts(plan, method, SEED), state.learner.variables, batch.obs)[0]
    assert found.shape == (6, ACTIONS, plan.agent.atoms or 1)
    np.testing.assert_allclose(after.sums[:2], [loss.mean(), error.mean()], rtol=1e-4)
    if name == "c51":
        assert norm > 0.05  # the clipping was felt
    if plan.agent.priority == "none":
        return
    # Priorities of what was drawn, to their exponent; of a transition drawn twice the larger; the rest as they were.
    raw = {"td": error, "loss": np.clip(loss, 0, 100), "sqrt_loss": np.sqrt(np.clip(loss, 0, 100))}[plan.agent.priority]
    leaf = np.array(state.ring.priorities.leaf).reshape(-1)
    index = np.asarray(batch.drawn.slot) * ENVS + np.asarray(batch.drawn.env)
    for i in set(index.tolist()):
        leaf[i] = max(raw[index == i]) ** plan.agent.priority_exponent
    np.testing.assert_allclose(np.asarray(after.ring.priorities.leaf).reshape(-1), leaf, rtol=1e-3, atol=1e-6)


def half_squares(tree):
    return 0.5 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("mitigation", "penalty"),
    [
        ("l2(0.05)", lambda p, p0: 0.05 * half_squares(p)),
        ("l2_init(0.05)", lambda p, p0: 0.05 * half_squares(jax.tree.map(jnp.subtract, p, p0))),
    ],
)
def test_penalties_are_part_of_the_gradient(mitigation, penalty):
    plan, method, state = filled(AGENTS["dqn"], mitigation)
    new, _, loss, *_ = rewrite(plan, method, state, 0, penalty)
    after = updated(plan, method, state)
    close(after.learner.variables["params"], new)
    np.testing.assert_allclose(after.sums[0], loss.mean(), rtol=1e-4)  # what is recorded is the loss without it


def test_weight_decay_is_beside_the_gradient():
    plan, method, state = filled(AGENTS["dqn"], "weight_decay(0.5)")
    new, *_ = rewrite(plan, method, state, 0)
    before = state.learner.variables["params"]
    close(
        updated(plan, method, state).learner.variables["params"],
        jax.tree.map(lambda n, p: n - LR * 0.5 * p, new, before),
    )


def test_the_first_step_of_adam():
    """m / sqrt(v) is the gradient's sign after one update."""
    plan, method, state = filled(AGENTS["dqn"], optimizer="adam(0.01, eps=1e-12)")
    sgd_plan, sgd_method, _ = filled(AGENTS["dqn"])
    assert sgd_plan == plan
    new, *_ = rewrite(plan, sgd_method, state, 0)
    before = state.learner.variables["params"]
    after = updated(plan, method, state).learner.variables["params"]

    def check(p, after, descended):
        grad = np.asarray(p - descended)
        big = np.abs(grad) > 1e-5
        np.testing.assert_allclose(np.asarray(after - p)[big], -0.01 * np.sign(grad[big]), rtol=1e-3)

    jax.tree.map(check, before, after, new)


def test_the_target_is_copied_at_multiples_of_its_period():
    plan, method, state = filled(f"dqn({SMALL}, target_updates=3)")
    for number in range(7):
        before, state = state, updated(plan, method, state, number)
        expected = state.learner.variables if (number + 1) % 3 == 0 else before.target
        jax.tree.map(np.testing.assert_array_equal, state.target, expected)
        assert not np.array_equal(*(jax.tree.leaves(t)[1] for t in (before.learner.variables, state.learner.variables)))


def test_many_updates_at_once_are_those_one_by_one():
    plan, method, together = filled(f"prioritized({SMALL}, target_updates=2)")
    one_by_one = together
    for number in range(4, 9):
        one_by_one = updated(plan, method, one_by_one, number)
    together = updated(plan, method, together, 4, 5)
    close(together.learner, one_by_one.learner)
    close(together.target, one_by_one.target)
    close(together.ring, one_by_one.ring)
    np.testing.assert_allclose(together.sums, one_by_one.sums, rtol=1e-4)
    unmoved = updated(plan, method, together, 9, 0)
    jax.tree.map(np.testing.assert_array_equal, unmoved, together)


def test_batches_differ_between_updates_and_seeds():
    plan, _, state = filled(AGENTS["dqn"])

    def index(seed, update):
        key = learner.replay_key(seed, update)
        drawn = learner.batch_of(plan, state.ring, state.ring.frames, jnp.int32(ROWS), key, 6, 1.0).drawn
        return tuple((np.asarray(drawn.slot) * ENVS + np.asarray(drawn.env)).tolist())

    assert len({index(0, 0), index(0, 1), index(1, 0), index(1, 1)}) == 4
    assert index(3, 7) == index(3, 7)


def test_noise_is_fresh_in_each_update_and_in_each_of_its_three_networks(monkeypatch):
    plan, method, state = filled(f"rainbow({SMALL}, atoms=7)")
    made = learner.parts(plan, method, SEED)
    batch = learner.batch_of(plan, state.ring, state.ring.frames, jnp.int32(ROWS), learner.replay_key(SEED, 0), 6, BETA)
    seen = []
    original = learner.outputs

    def watched(plan, made, variables, obs, noise=None):
        seen.append(None if noise is None else tuple(np.asarray(jax.random.key_data(noise)).tolist()))
        return original(plan, made, variables, obs, noise)

    monkeypatch.setattr(learner, "outputs", watched)
    results = [learner.update(plan, made, SEED, state, batch, jnp.int32(number)) for number in (0, 1, 1)]
    assert len(seen) == 9
    assert None not in seen
    assert len(set(seen)) == 6  # the third update repeats the second
    first, second, again = (jax.tree.leaves(r.learner.variables)[0] for r in results)
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(second, again)


def test_without_noise_no_key_reaches_the_network(monkeypatch):
    plan, method, state = filled(AGENTS["dqn"])
    made = learner.parts(plan, method, SEED)
    batch = learner.batch_of(plan, state.ring, state.ring.frames, jnp.int32(ROWS), learner.replay_key(SEED, 0), 6, BETA)
    original = learner.outputs

    def watched(plan, made, variables, obs, noise=None):
        assert noise is None
        return original(plan, made, variables, obs, noise)

    monkeypatch.setattr(learner, "outputs", watched)
    learner.update(plan, made, SEED, state, batch, jnp.int32(0))


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
    after = learner.event(plan, method, SEED, state, jnp.int32(0))
    close(after.learner.variables, jax.tree.map(lambda p: 0.25 * p, state.learner.variables))
    jax.tree.map(np.testing.assert_array_equal, after.target, after.learner.variables)
    jax.tree.map(np.testing.assert_array_equal, after.ring, state.ring)


def test_a_full_reset_is_fresh_each_time():
    plan, method, state = filled(AGENTS["dqn"], "full_reset", "adam(0.01)")
    state = updated(plan, method, state, 0, 2)
    once, twice = (learner.event(plan, method, SEED, state, jnp.int32(n)) for n in (0, 1))
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
