"""The learning rate of an agent over its stay in a game, or over its whole run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled_agents import AGENTS, BETA, ROWS, SEED, filled
from small_agents import runs_of, trained

from plasticity.errors import UserError
from rl import learner
from rl.lanes import Lanes
from rl.measure import Measure
from rl.schedule import Schedule

STEPS = "lr_schedule(steps, milestones=0.5, factor=0)"


def learned(mitigations, *elapsed):
    """Parameters before and after two updates."""
    plan, method, state = filled(AGENTS["dqn"], mitigations)
    numbers = jnp.int32(ROWS), jnp.int32(0), jnp.int32(2), jnp.float32(BETA)
    after = learner.learn(plan, method, SEED, state.ring.frames, learner.detached(state), *numbers, *elapsed)
    return state.learner.variables["params"], after.learner.variables["params"]


def test_updates_of_an_agent_are_multiplied():
    before, after = learned(STEPS, jnp.float32(0.6))
    jax.tree.map(np.testing.assert_array_equal, after, before)
    _, early = learned(STEPS, jnp.float32(0.4))
    _, plain = learned("none")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), early, plain)
    assert not np.allclose(*(jax.tree.leaves(tree)[1] for tree in (early, before)))


def test_without_a_share_an_agent_says_what_is_missing():
    with pytest.raises(UserError, match=r"lr_schedule: update.* needs elapsed="):
        learned(STEPS)


def test_shares_of_a_stay_and_of_a_run():
    schedule = Schedule(frames=800, iteration_frames=100, switch_iterations=2)
    assert [schedule.elapsed(frames, 1) for frames in (0, 200, 600)] == [0, 0.25, 0.75]
    assert [schedule.elapsed(frames, 2) for frames in (0, 50, 199, 200, 350)] == [0, 0.25, 0.995, 0, 0.75]


@pytest.mark.parametrize("games", ["minatar_breakout", "minatar_breakout>minatar_asterix"])
def test_training_begins_anew_in_a_game_and_measures_with_the_same_rate(games, tmp_path, monkeypatch):
    """Two environments, steps of one frame; 40 rows of transitions fill the replay first."""
    seen, measured = [], []
    learn, measure = Lanes.learn, Lanes.measure

    def watched(lanes, first, updates, beta, elapsed):
        seen.append(elapsed)
        learn(lanes, first, updates, beta, elapsed)

    def watched_measure(lanes, number, elapsed):
        measured.append((elapsed, seen[-1]))
        return measure(lanes, number, elapsed)

    monkeypatch.setattr(Lanes, "learn", watched)
    monkeypatch.setattr(Lanes, "measure", watched_measure)
    runs = runs_of(
        games,
        "small_dqn(replay_steps=400, min_replay_steps=40, batch_size=4, replay_ratio=0.5)",
        "lr_schedule(linear)",
        network="mlp(4, 1)",
        measure=Measure(every_updates=50, reference=4),
        frames=400,
        iteration_frames=200,
        envs=2,
        switch_iterations=1,
    )
    trained(tmp_path, runs)
    stay = 200 if ">" in games else 400
    # The 20th step of the two, and one update for each step from then on.
    assert seen == pytest.approx([frames % stay / stay for frames in range(38, 400, 2)])
    assert measured
    assert all(a == b for a, b in measured)
