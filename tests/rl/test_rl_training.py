"""Training of whole groups: known values on probes with every preset, books, sequences, events, records."""

import math

import numpy as np
import pytest
from small_agents import BUDGET, NO_MEASURE, folder_of, policies, runs_of, trained, values

from plasticity.errors import UserError
from plasticity.folder import Options
from plasticity.record import COLUMNS, read_json, read_runs
from rl import learner
from rl.agents import agents
from rl.envs import probes
from rl.lanes import Lanes
from rl.measure import Measure
from rl.train import train

OWN = f"{BUDGET}, value_max=4, gamma=0.7"
QUICK = ("dqn", "rainbow", "c51", "prioritized")
PRESETS = [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in agents.members()]


@pytest.mark.parametrize("game", ["probe_truncation", "probe_action_observation"])
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_finds_the_known_values_of_a_probe(name, game, tmp_path):
    """Truncation: bootstrap, its discount, the last frame's value. Action and observation: both told apart."""
    runs = runs_of(
        game, f"{name}({OWN})", seeds=(0, 1), frames=2400, iteration_frames=2400, envs=4, optimizer="adam(3e-3)"
    )
    rows = trained(tmp_path, runs)
    expected = probes.expected(game, 0.7)
    found = values(tmp_path, runs, list(expected))
    # An agent that never acts at random knows the best actions only.
    np.testing.assert_allclose(found.max(axis=2), [[max(v) for v in expected.values()]] * 2, atol=0.12)
    if game == "probe_action_observation":
        np.testing.assert_array_equal(found.argmax(axis=2), [[np.argmax(v) for v in expected.values()]] * 2)
    if name == "dqn":
        np.testing.assert_allclose(found, [list(expected.values())] * 2, atol=0.02)
    assert [line.status for line in read_runs(tmp_path)] == ["done", "done"]
    assert set(rows["name"]) >= {"return", "episodes", "episode_length", "epsilon", "loss", "td_error", "q_mean"}


@pytest.mark.parametrize(
    ("life_loss", "first"), [("off", 1.7), pytest.param("discount", 1.0), pytest.param("episode", 1.0)]
)
def test_lost_lives_in_the_values_of_a_probe(life_loss, first, tmp_path):
    runs = runs_of(
        "probe_life",
        f"dqn({OWN})",
        frames=1600,
        iteration_frames=1600,
        envs=4,
        optimizer="adam(3e-3)",
        protocol=f"plain(life_loss={life_loss})",
    )
    trained(tmp_path, runs)
    expected = probes.expected("probe_life", 0.7, life_loss)
    assert expected[0.0,][0] == pytest.approx(first)
    np.testing.assert_allclose(values(tmp_path, runs, list(expected))[0], list(expected.values()), atol=0.03)


FAKE = "dqn(replay_steps=100, min_replay_steps=40, target_updates=5, epsilon_end=1, batch_size=4)"


def fake(agent=FAKE, mitigations="none", seeds=(0,), measure=NO_MEASURE, game="fake", **schedule):
    """A run of random play on the game whose rows are known; 13 rows an episode with its reset row."""
    return runs_of(game, agent, mitigations, seeds, measure, "mlp(4, 1)", **schedule)


class Returns:
    """Replays the fake game's rewards by hand from what was sent."""

    def __init__(self, envs):
        self.t, self.total = [0] * envs, [0.0] * envs
        self.finished = []

    def sent(self, actions):
        for e, action in enumerate(actions):
            if self.t[e] == 12:  # over: the next row is the reset row
                self.t[e], self.total[e] = 0, 0.0
                continue
            self.t[e] += 1
            self.total[e] += self.t[e] if action == self.t[e] % 4 else -1
            if self.t[e] == 12:
                self.finished.append((e, self.total[e]))


def test_returns_by_hand_and_records(tmp_path, monkeypatch):
    sent = []
    original = Lanes.act

    def watched(self, row, epsilon):
        actions = original(self, row, epsilon)
        sent.append(np.asarray(actions).tolist())
        return actions

    monkeypatch.setattr(Lanes, "act", watched)
    runs = fake(seeds=(0, 1), frames=120, iteration_frames=60, envs=2)
    rows = trained(tmp_path, runs)
    assert list(rows.columns) == list(COLUMNS)
    assert len(sent) == 60
    for iteration in (0, 1):
        by_hand = Returns(4)
        for actions in sent[30 * iteration : 30 * iteration + 30]:  # fresh episodes at each checkpoint
            by_hand.sent(actions)
        for lane, run in enumerate(runs):
            returns = [total for env, total in by_hand.finished if env // 2 == lane]
            assert len(returns) == 4
            own = rows[(rows.run_id == run.id) & (rows.task == iteration)].set_index("name")
            assert own.value["return"] == own.value["end_score"] == pytest.approx(np.mean(returns))
            assert own.value["episodes"] == 4
            assert own.value["episode_length"] == 12
            assert (own.unit["return"], own.unit["episode_length"], own.unit["episodes"]) == (
                "points",
                "frames",
                "episodes",
            )
            # 30 agent steps of 2 environments an iteration, updates from the 40th step on, one every 4.
            assert own.step["return"] == updates_after(60 * (iteration + 1))
    assert set(rows["layer"]) == {""}
    assert read_json(tmp_path / "provenance.json")["replay"]
    assert not list((tmp_path / "checkpoints").glob("*"))


def updates_after(steps, least=40, ratio=0.25, envs=2):
    """One credit of `ratio` an agent step, from the row on at which the replay holds `least`."""
    return int(sum(envs * ratio for done in range(envs, steps + 1, envs) if done >= least))


def test_an_iteration_without_an_episode_has_no_score(tmp_path):
    rows = trained(tmp_path, fake(frames=60, iteration_frames=20, envs=2, checkpoint_iterations=3))
    scored = rows[rows.name == "end_score"]
    # 10 steps an iteration: episodes of 12 steps end in the second and, after a reset row, in the third.
    assert scored.task.tolist() == [1, 2]
    assert rows[rows.name == "return"].task.tolist() == [1, 2]
    assert rows[rows.name == "episodes"].value.tolist() == [0, 2, 2]
    again = trained(tmp_path / "fresh", fake(frames=60, iteration_frames=20, envs=2, checkpoint_iterations=1))
    assert again[again.name == "end_score"].empty  # fresh episodes each time: none ends


def test_an_episode_that_ends_with_its_iteration_counts(tmp_path):
    rows = trained(tmp_path, fake(frames=48, iteration_frames=24, envs=2, checkpoint_iterations=1))
    assert rows[rows.name == "episodes"].value.tolist() == [2, 2]  # 12 steps are an episode and an iteration


@pytest.mark.parametrize(("ratio", "each"), [(0.375, 0.75), (1.5, 3), (0.125, 0.25)])
def test_updates_are_a_function_of_agent_steps(ratio, each, tmp_path, monkeypatch):
    calls = Calls(monkeypatch)
    trained(tmp_path, fake(FAKE.replace("batch_size", f"replay_ratio={ratio}, batch_size"), frames=120,
                           iteration_frames=60, envs=2))  # fmt: skip
    done = [first + updates for _, first, updates in calls.of("learn")]
    # The replay holds its 40 rows from the 20th of 60 cycles on.
    owed = [int(each * n) for n in range(1, 42)]
    assert done == sorted(set(owed) - {0})


class Calls:
    """What the training loop asks of its lanes."""

    def __init__(self, monkeypatch):
        self.log = []
        for name in ("learn", "event", "forget", "draw_reference", "measure", "probe"):
            self._watch(monkeypatch, name)

    def _watch(self, monkeypatch, name):
        original, log, kept = getattr(Lanes, name), self.log, {"learn": 2, "measure": 1}.get(name)

        def watched(lanes, *given):
            log.append((name, *given[:kept]))
            return original(lanes, *given)

        monkeypatch.setattr(Lanes, name, watched)

    def of(self, *names):
        return [call for call in self.log if call[0] in names]


def test_events_act_at_multiples_of_their_period(tmp_path, monkeypatch):
    calls = Calls(monkeypatch)
    runs = fake(mitigations="full_reset", frames=160, iteration_frames=80, envs=2, event_updates=10)
    trained(tmp_path, runs)
    done, at = 0, []
    for name, *given in calls.of("learn", "event"):
        if name == "learn":
            assert given[0] == done
            done += given[1]
        else:
            at.append((given[0], done))
    assert at == [(1, 10), (2, 20), (3, 30)]
    assert done == updates_after(160)


def test_events_only_where_a_mitigation_has_them(tmp_path, monkeypatch):
    calls = Calls(monkeypatch)
    trained(tmp_path, fake(mitigations="l2", frames=160, iteration_frames=80, envs=2, event_updates=10))
    assert calls.of("event") == []


def test_measuring_points_are_recorded_and_measuring_changes_nothing(tmp_path, monkeypatch):
    calls = Calls(monkeypatch)
    often = Measure(every_updates=8, reference=4, probe_iterations=2, probe_updates=3, ranks=False)
    schedule = {"frames": 240, "iteration_frames": 60, "envs": 2}
    agent = FAKE.replace("epsilon_end=1", "epsilon_end=0.1")
    measured = fake(agent, measure=often, **schedule)
    rows = trained(tmp_path / "measured", measured)
    total = updates_after(240)
    points = [n for n in range(1, total + 1) if n in (1, 2, 4) or n % 8 == 0]
    assert [n for _, n in calls.of("measure")] == points
    assert rows[rows.name == "policy_churn"].step.tolist() == points
    assert calls.of("probe") == [("probe", 1), ("probe", 3)]
    assert rows[rows.name == "probe_loss"].task.tolist() == [1, 3]
    assert calls.of("draw_reference") == [("draw_reference", 0)]
    plain = fake(agent, **schedule)
    trained(tmp_path / "plain", plain)
    for a, b in zip(*(_leaves(policies(tmp_path / n, r)) for n, r in (("measured", measured), ("plain", plain))),
                    strict=True):  # fmt: skip
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def _leaves(tree):
    import jax

    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("keep", [True, False])
def test_a_sequence_of_games(keep, tmp_path, monkeypatch):
    calls = Calls(monkeypatch)
    runs = runs_of(
        "minatar_breakout>minatar_asterix",
        "small_dqn(replay_steps=400, min_replay_steps=40, batch_size=4)",
        "shrink_perturb",
        network="mlp(4, 1)",
        frames=800,
        iteration_frames=200,
        envs=2,
        switch_iterations=1,
        keep_replay=keep,
    )
    assert runs[0].protocol.full_actions
    rows = trained(tmp_path, runs)
    assert rows[rows.name == "game"].sort_values("task").value.tolist() == [0, 1, 0, 1]
    assert calls.of("event") == [("event", 1), ("event", 2), ("event", 3)]
    assert len(calls.of("forget")) == (0 if keep else 3)
    assert [call[1] for call in calls.of("draw_reference")] == [0, 1, 2, 3]
    done = sum(updates for _, _, updates in calls.of("learn"))
    # Without the old game's rows an agent fills its replay again before it goes on.
    first = updates_after(200)
    expected = updates_after(800) if keep else 4 * first
    assert abs(done - expected) <= 2


def test_sequences_need_to_know_when_to_switch_and_games_of_one_suite():
    with pytest.raises(UserError, match="switch_iterations"):
        runs_of("minatar_breakout>minatar_asterix", "small_dqn", frames=100, iteration_frames=100)
    with pytest.raises(UserError, match="one suite"):
        runs_of("minatar_breakout>pong", "small_dqn", frames=100, iteration_frames=100, switch_iterations=1)


def test_a_diverged_lane_is_marked_and_the_others_finish(tmp_path):
    agent = "dopamine_dqn(replay_steps=200, min_replay_steps=40, gamma=0.99)"
    runs = [
        *runs_of("probe_truncation", agent, optimizer="sgd(1e-2)", frames=400, iteration_frames=200, envs=2),
        *runs_of("probe_truncation", agent, optimizer="sgd(1e6)", frames=400, iteration_frames=200, envs=2),
    ]
    rows = trained(tmp_path, runs)
    lines = read_runs(tmp_path)
    assert [line.status for line in lines] == ["done", "diverged"]
    assert lines[1].error == "loss not finite in iteration 0"
    assert rows[(rows.run_id == runs[0].id) & (rows.name == "loss")].value.map(math.isfinite).all()
    assert not rows[(rows.run_id == runs[1].id) & (rows.name == "loss")].value.map(math.isfinite).all()
    alone = trained(tmp_path / "alone", runs[:1])
    together = rows[(rows.run_id == runs[0].id) & (rows.name == "loss")].value
    np.testing.assert_allclose(alone[alone.name == "loss"].value, together, rtol=1e-4)


def test_progress_counts_all_frames(tmp_path):
    amounts = []
    runs = fake(seeds=(0, 1), frames=60, iteration_frames=20, envs=2)
    trained(tmp_path, runs, Options(progress=amounts.append))
    assert sum(amounts) == 2 * 60


def test_best_and_last_policies(tmp_path):
    runs = runs_of(
        "probe_action",
        f"dqn({OWN})",
        frames=800,
        iteration_frames=200,
        envs=4,
        optimizer="adam(3e-3)",
    )
    rows = trained(tmp_path, runs)
    scores = rows[rows.name == "end_score"].sort_values("task").value.tolist()
    assert scores[-1] > 0.7 > scores[0]
    assert read_json_host(tmp_path / "policies" / "best")["best"] == [max(scores)]
    last = policies(tmp_path, runs, "last")["params"]["output"]["kernel"]
    best = policies(tmp_path, runs, "best")["params"]["output"]["kernel"]
    assert (scores.index(max(scores)) == 3) == np.array_equal(last, best)


def read_json_host(folder):
    import json

    (path,) = folder.glob("*.npz")
    with np.load(path) as file:
        return json.loads(str(file["host"]))


def test_the_fields_of_rows_are_checked_before_compute(tmp_path):
    runs = runs_of("probe_value", "c51", "two_hot", frames=100, iteration_frames=100, envs=4)
    with pytest.raises(UserError, match="scalar values"):
        train(folder_of(tmp_path, runs), runs, [r.method for r in runs], Options())
    assert learner.base_head(runs[0].agent).outputs == 51
