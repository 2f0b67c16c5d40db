"""Value learning on images: transitions by their rules, targets by hand, the target network at the switch."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from plasticity.errors import UserError
from plasticity.heads import Regression, TwoHot
from plasticity.method import Method
from plasticity.mitigations import compose, mitigations
from plasticity.networks import networks
from plasticity.optimizers import optimizers
from plasticity.spec import build, build_one
from tasks import objectives
from tasks.base import Batch, Transition, tasks
from tasks.measure import Measure
from tasks.train import architecture_on, chunks, run_chunk, start

OFF = Measure(points="off", ranks_every=0)
SMALL = "batch_size=20, examples_used=200, pool=4"
REWARDS = ["true_label", "random_label", "sparse"]


def stream(more="", size=SMALL):
    return build_one(f"image_mdp({size}{', ' * bool(more)}{more})", tasks)


def method(mitigation="none", network="mlp(16, 1)", optimizer="adam(1e-2)"):
    members = compose.canonical(build(mitigation, mitigations))
    return Method(build_one(network, networks), build_one(optimizer, optimizers), members)


def sampled(task, data, count=20_000):
    context = task.first(jax.random.key(0), data)
    return context, task.sample(context, jax.random.key(1), count, jnp.int32(0), data)


@pytest.mark.parametrize("reward", REWARDS)
def test_rewards_and_moves_follow_their_rules(reward, numbered, number_of):
    task = stream(f"reward={reward}")
    context, batch = sampled(task, numbered)
    states = np.asarray(context.state)
    if reward != "random_label":
        np.testing.assert_array_equal(states, numbered.labels)
    state, after = states[number_of(batch.x)], states[number_of(batch.y.next_x)]
    action = np.asarray(batch.y.action)
    np.testing.assert_array_equal(batch.y.best, state)
    pays = (action == state) & (state == 9) if reward == "sparse" else action == state
    np.testing.assert_array_equal(batch.y.reward, pays.astype(np.float32))
    right = action == state
    np.testing.assert_array_equal(after[right], (state[right] + 1) % 10)
    # Every wrong action leads anywhere, whatever state and action are.
    table = np.zeros((10, 10))
    np.add.at(table, (state[~right], after[~right]), 1)
    for row in table:
        assert stats.chisquare(row).pvalue > 1e-4
    assert stats.chisquare(np.bincount(action, minlength=10)).pvalue > 1e-3
    np.testing.assert_array_equal(batch.y.discount, np.float32(0.9))


def test_a_bandit_leads_anywhere(numbered, number_of):
    context, batch = sampled(stream("moves=random"), numbered)
    after = np.asarray(context.state)[number_of(batch.y.next_x)]
    right = np.asarray(batch.y.reward) == 1
    assert stats.chisquare(np.bincount(after[right], minlength=10)).pvalue > 1e-3


@pytest.mark.parametrize("reward", REWARDS)
def test_all_images_of_a_state_are_as_likely(reward, numbered, number_of):
    task = stream(f"reward={reward}")
    context, batch = sampled(task, numbered)
    assert stats.chisquare(np.bincount(number_of(batch.x), minlength=200)).pvalue > 1e-3
    states, following = np.asarray(context.state), number_of(batch.y.next_x)
    for state in range(10):
        own = np.flatnonzero(states == state)
        shown = np.bincount(following[states[following] == state], minlength=200)
        assert shown.sum() == shown[own].sum()
        assert stats.chisquare(shown[own]).pvalue > 1e-4


def test_random_states_have_equally_many_images_and_do_not_change(data):
    task = stream("reward=random_label")
    context = task.first(jax.random.key(0), data)
    np.testing.assert_array_equal(np.bincount(context.state), 20)
    other = task.first(jax.random.key(1), data)
    assert (context.state != other.state).any()
    np.testing.assert_array_equal(task.following(context, jax.random.key(2), jnp.int32(1), data).state, context.state)


def test_targets_and_loss_by_hand():
    """Two transitions, two actions. max Q'(x') is 3 and 5; targets 1 + .5 * 3 = 2.5 and 0 + .5 * 5 = 2.5."""
    head = Regression(0.0, 10.0)
    y = Transition(
        jnp.array([1, 0]),
        jnp.array([1.0, 0.0]),
        jnp.full(2, 0.5),
        jnp.array([[3.0, 2.0], [4.0, 5.0]]),
        jnp.array([1, 1]),
    )
    batch = objectives.with_targets(head, Batch(jnp.zeros((2, 1)), y), lambda x: x)
    np.testing.assert_array_equal(objectives.targets(batch), [2.5, 2.5])
    outputs = jnp.array([[0.0, 2.0], [4.5, 1.0]])
    # Taken: 2.0 and 4.5; errors -.5 and 2; half the mean square is (.25 + 4) / 4.
    assert objectives.loss(head, outputs, batch) == pytest.approx(4.25 / 4)
    # Greedy: action 1 (right), action 0 (wrong).
    assert objectives.score(head, outputs, batch) == 0.5


def test_a_categorical_head_is_read_action_by_action():
    """Three bins at 0, 1, 2; the outputs of two actions lie side by side."""
    head = TwoHot(3, 0.0, 2.0)
    sure = jnp.array([[0.0, 0.0, 50.0, 50.0, 0.0, 0.0]])  # values 2 and 0
    y = Transition(jnp.array([0]), jnp.array([0.0]), jnp.array([0.5]), sure, jnp.array([0]))
    batch = objectives.with_targets(head, Batch(jnp.zeros((1, 1)), y), lambda x: x)
    np.testing.assert_allclose(objectives.targets(batch), [1.0], rtol=1e-6)
    assert objectives.score(head, sure, batch) == 1.0
    middle = jnp.array([[0.0, 50.0, 0.0, 9.0, 9.0, 9.0]])
    assert objectives.loss(head, middle, batch) == pytest.approx(0.0, abs=1e-6)


def run(task, config, count, data, seed=0):
    state = start(task, config, jnp.int32(seed), data)
    (span, chunk), = chunks(task.steps, OFF, 10**6)  # fmt: skip
    advance = jax.jit(lambda s, i: run_chunk(task, config, OFF, span, jnp.int32(seed), s, i, chunk, data))
    states, records = [state], []
    for index in range(count):
        state, record = advance(state, jnp.int32(index))
        states.append(state), records.append(record.final)
    return states, records


def same(a, b):
    return all(bool(jnp.all(x == y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_the_target_network_is_what_was_learned_at_the_last_switch(data):
    task = stream("steps=5, num_tasks=3")
    states, _ = run(task, method("full_reset"), 3, data)
    assert same(states[1].targets.now, states[0].learner.variables), "in the first task it is the untouched network"
    for before, after in pairwise(states[1:]):
        # Before the reset that follows the switch.
        assert same(after.targets.now, before.learner.variables)
        assert same(after.targets.before, before.targets.now)
        assert not same(after.targets.now, after.learner.variables)


def test_a_transition_moves_the_target_network_in_a_straight_line(data):
    """One update a task. With transition 1 the first update after a switch still has the old target network."""
    abrupt, smooth = (run(stream(f"steps=1, num_tasks=3, transition={t}"), method(), 3, data)[1] for t in (0, 1))
    assert abrupt[0]["online_loss"] == smooth[0]["online_loss"]
    assert abrupt[2]["online_loss"] != smooth[2]["online_loss"]


def test_values_of_a_bandit_grow_to_their_offset(data):
    """With gamma .5 the optimal values are 1 + 1 for the right action and 1 for the others."""
    task = stream("steps=400, num_tasks=10, moves=random, gamma=0.5, batch_size=50", "examples_used=200, pool=4")
    states, records = run(task, method(network="mlp(64, 1)", optimizer="adam(3e-3)"), 10, data)
    assert records[-1]["end_score"] > 0.9
    network = build_one("mlp(64, 1)", networks)
    network = network.build(architecture_on(task, (), data))
    outputs = np.asarray(network.apply(states[-1].learner.variables, data.inputs(jnp.arange(200)))[0])
    right = outputs[np.arange(200), np.asarray(data.labels)]
    assert np.mean(right) == pytest.approx(2.0, abs=0.25)
    assert np.mean(outputs) == pytest.approx(1.1, abs=0.2)


def test_what_cannot_be(data):
    with pytest.raises(UserError, match="reward=sparse needs moves=chain"):
        stream("reward=sparse, moves=random")
    with pytest.raises(UserError, match="held_out must be 0, got 5"):
        stream("held_out=5")


def test_in_pieces_and_as_a_whole_it_is_the_same_run(data):
    """The target network is part of the state, so that a chunk may end anywhere."""
    task, config = stream("steps=7, num_tasks=3, transition=0.5"), method()
    whole, _ = run(task, config, 3, data)
    state = start(task, config, jnp.int32(0), data)
    advance = jax.jit(
        lambda s, i, chunk, span: run_chunk(task, config, OFF, span, jnp.int32(0), s, i, chunk, data)[0],
        static_argnums=3,
    )
    for index in range(3):
        for span, chunk in chunks(task.steps, Measure(points="dense", ranks_every=0), 2):
            state = advance(state, jnp.int32(index), chunk, span)
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(whole[-1]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_mitigations_of_values_see_the_next_observations(data):
    """DR3 needs the features of what follows, which a transition has and other streams have not."""
    task = stream("steps=5, num_tasks=2")
    plain, penalised = (run(task, method(text), 2, data)[1] for text in ("none", "dr3(1.0)"))
    assert plain[0]["online_loss"] != penalised[0]["online_loss"]
    with pytest.raises(UserError, match="dr3"):
        start(build_one("label_reset(examples_used=200, pool=4)", tasks), method("dr3"), jnp.int32(0), data)


@pytest.mark.parametrize("text", ["two_hot", "layer_norm+redo(every=2)", "shrink_perturb", "c_chain(mode=fixed)"])
def test_mitigations_act_on_values(text, data):
    _, records = run(stream("steps=5, num_tasks=2"), method(text), 2, data)
    assert all(np.isfinite(value).all() for record in records for value in record.values())
