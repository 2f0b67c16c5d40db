"""Updates against a rewrite from the formulas, on a small network; targets and noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled_agents import ACTIONS, AGENTS, BETA, ENVS, LR, ROWS, SEED, SMALL, close, filled, softmax, updated

from rl import learner


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

    def watched(plan, made, variables, obs, noise=None, train=False):
        seen.append(None if noise is None else tuple(np.asarray(jax.random.key_data(noise)).tolist()))
        return original(plan, made, variables, obs, noise, train)

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

    def watched(plan, made, variables, obs, noise=None, train=False):
        assert noise is None
        return original(plan, made, variables, obs, noise, train)

    monkeypatch.setattr(learner, "outputs", watched)
    learner.update(plan, made, SEED, state, batch, jnp.int32(0))
