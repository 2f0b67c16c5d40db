"""Whole runs on real games: Pong through the emulator as a smoke test, and learning of a small game (slow)."""

import jax
import numpy as np
import pytest
from small_agents import NO_MEASURE, policies, runs_of, trained

from rl.measure import Measure


def test_a_few_thousand_frames_of_pong(tmp_path):
    """Every part of the pipeline once: emulator, stacks, replay, learner, mitigations, diagnostics, policies."""
    runs = runs_of(
        "pong",
        "dqn(replay_steps=600, min_replay_steps=100, batch_size=8, target_updates=20, epsilon_decay_steps=200)",
        "layer_norm+redo(every=25)",
        measure=Measure(every_updates=50, reference=16),
        network="nature(32, padding=VALID)",
        frames=2400,
        iteration_frames=1200,
        envs=2,
    )
    rows = trained(tmp_path, runs)
    updates = (300 - 50 + 1) // 2
    found = rows[rows.layer == ""].groupby("name").value
    assert rows.step.max() == updates
    assert set(rows[rows.name == "loss"].step) >= {1, 2, 4, 8, 16, 32, 50, 100}
    for name in ("loss", "td_error", "q_mean", "policy_churn", "value_churn", "weight_norm", "episodes", "epsilon"):
        assert np.isfinite(found.get_group(name)).all()
    layers = {name: set(rows[rows.name == name].layer) for name in ("dead_units", "dormant_units", "srank")}
    assert layers["dead_units"] >= {"conv_0", "conv_1", "conv_2", "hidden"}
    assert "hidden" in layers["srank"]
    assert rows[rows.name == "policy_churn"].value.between(0, 1).all()
    assert rows[rows.name == "game"].value.eq(0).all()
    # Games of Pong last longer than this: no episode, no score.
    assert rows[rows.name == "end_score"].empty
    params = policies(tmp_path, runs)["params"]
    assert params["conv_0"]["kernel"].shape == (1, 8, 8, 4, 32)
    assert "norm_hidden" in params
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


@pytest.mark.slow
@pytest.mark.parametrize("mitigations", ["none", "layer_norm"])
def test_a_small_game_is_learned(mitigations, tmp_path):
    """Breakout of MinAtar: random play scores about .5, 60,000 frames of learning several times that."""
    runs = runs_of(
        "minatar_breakout",
        "small_dqn",
        mitigations,
        seeds=(0, 1),
        measure=NO_MEASURE,
        network="minatar",
        frames=60_000,
        iteration_frames=6_000,
        envs=4,
    )
    rows = trained(tmp_path, runs)
    scores = rows[rows.name == "end_score"]
    assert scores[scores.task == 0].value.mean() < 1.2
    assert scores[scores.task == 9].value.mean() > 2.5
