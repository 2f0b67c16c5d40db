"""The command line of `rl`: what it lists, refuses, trains, finds finished, evaluates and draws."""

import json

import numpy as np
import pytest
from PIL import Image

from analysis.load import load
from plasticity.checkpoint import latest
from plasticity.record import read_json, read_runs
from rl.__main__ import main
from rl.evaluate import Policies, evaluate
from rl.render import contact_sheet, picture

AGENT = "small_dqn(min_replay_steps=80, replay_steps=400, batch_size=8, target_updates=10)"
SMALL = ["--agent", AGENT, "--envs", "2", "--frames", "400", "--iteration-frames", "100", "--measure-updates", "20"]
MINATAR = [*SMALL, "--game", "minatar_breakout", "--seeds", "2", "--probe-iterations", "2", "--probe-updates", "3"]


def run(*args, expect=0):
    assert main([str(a) for a in args]) == expect


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two small agents on a MinAtar game."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    run("train", *MINATAR, "--mitigations", "layer_norm", "--out", folder)
    return folder


@pytest.mark.parametrize("what", ["games", "presets", "protocols", "sets"])
def test_lists(what, capsys):
    run("list", what)
    said = capsys.readouterr().out
    assert {"games": "-20.7", "presets": "dopamine", "protocols": "machado", "sets": "redo17"}[what] in said


def test_describe_names_fields_with_units(capsys):
    run("describe", "rainbow")
    said = capsys.readouterr().out
    assert "replay_ratio" in said
    assert "updates an" in said
    assert "protocol nature" in said
    run("describe", "machado")
    assert "sticky" in capsys.readouterr().out


def test_a_dry_run_says_what_it_will_cost_and_writes_nothing(tmp_path, capsys):
    run("train", "--game", "pong", "--out", tmp_path / "new", "--dry-run")
    said = " ".join(capsys.readouterr().out.split())
    assert "6,868,842 parameters" in said  # Rainbow on Pong's 6 actions
    assert "200,000,000 frames and 12,495,000 updates" in said  # (50 million - 20,000 steps) / 4
    assert "1,000,000 transitions" in said
    assert "7.07 GB" in said
    assert not (tmp_path / "new").exists()


def test_print_config_is_json(capsys):
    run("train", *MINATAR, "--print-config")
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "rl"
    assert found["tasks"][0]["frames"] == 100
    assert found["tasks"][0]["num_tasks"] == 4
    assert [config["seed"] for config in found["configs"].values()] == [0, 1]


MISTAKES = {
    ("--game", "pomg"): "Did you mean 'pong'",
    ("--game", "combat"): "two players",
    ("--agent", "rainbw"): "Did you mean 'rainbow'",
    ("--agent", "rainbow(atoms=1)"): "at least 2",
    ("--agent", "rainbow(replay_ration=1)"): "replay_ratio",
    ("--agent", "rainbow(replay_steps=10000000000)"): "allowed here",
    ("--protocol", "machdo"): "Did you mean 'machado'",
    ("--mitigations", "two_hot"): "two_hot needs a regression task or an agent with scalar values",
    ("--frames", "12345"): "the nearest is 12352",
    ("--envs", "7", "--frames", "100000", "--iteration-frames", "1000"): "the nearest is 1008",
    ("--game", "breakout>asterix"): "switch_iterations",
    ("--game", "minatar_breakout>pong", "--switch-iterations", "1", "--iteration-frames", "32"): "games of one suite",
    ("--seeds", "0"): "seeds must be >= 1",
    ("--save-seconds", "-1"): "--save-seconds must be >= 0",
}


@pytest.mark.parametrize("args", MISTAKES, ids=" ".join)
def test_mistakes_are_told_before_anything_is_computed(args, tmp_path, capsys):
    run("train", *args, "--out", tmp_path / "new", expect=2)
    assert MISTAKES[args] in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "new").exists()


def test_a_training_leaves_records_that_analysis_reads(trained):
    study, frame = load(trained)
    assert study.kind == "rl"
    assert study.tasks[0].num_tasks == 4
    names = set(frame["name"])
    assert {"return", "end_score", "episodes", "loss", "dead_units", "srank", "policy_churn", "probe_loss"} <= names
    group = next((trained / "groups").iterdir())
    assert [line.status for line in read_runs(group)] == ["done", "done"]
    assert read_json(group / "provenance.json")["replay"].startswith("400 transitions")
    assert latest(group / "checkpoints") is None
    assert latest(group / "policies" / "best") is not None


def test_the_same_command_again_computes_nothing(trained, capsys, monkeypatch):
    monkeypatch.setattr("rl.command.train", lambda *_: pytest.fail("trained again"))
    run("train", *MINATAR, "--mitigations", "layer_norm", "--out", trained)
    assert "finished before" in capsys.readouterr().out


def test_a_folder_of_another_training_is_refused(trained, capsys):
    before = {p: p.read_bytes() for p in trained.rglob("*") if p.is_file()}
    run("train", *MINATAR, "--out", trained, expect=2)
    said = capsys.readouterr().err
    assert "holds another training" in said
    assert "layer_norm" in said
    assert {p: p.read_bytes() for p in trained.rglob("*") if p.is_file()} == before


def test_evaluation_prints_writes_and_draws(trained, tmp_path, capsys):
    gif, sheet = tmp_path / "a.gif", tmp_path / "a.png"
    run("evaluate", trained, "--episodes", "3", "--gif", gif, "--sheet", sheet, "--most-steps", "30")
    assert "minatar_breakout" in capsys.readouterr().out
    found = read_json(trained / "evaluation-best.json")
    assert [len(one["returns"]) for one in found["runs"]] == [3, 3]
    with Image.open(gif) as image:
        assert image.size == (200, 200)
        assert 2 <= image.n_frames <= 31
    with Image.open(sheet) as image:
        assert image.size[0] == 6 * 204 + 4


def test_evaluation_is_repeatable_and_the_same_for_one_run_as_for_all(trained):
    policies = Policies.load(next((trained / "groups").iterdir()), "last")
    first = evaluate(policies, 4, 0.0)
    np.testing.assert_array_equal(first, evaluate(policies, 4, 0.0))
    assert first.shape == (2, 4)
    assert np.any(evaluate(policies, 4, 1.0) != first)  # all actions random: another game


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--episodes", "0"), "--episodes must be >= 1"),
        (("--epsilon", "1.5"), "between 0 and 1"),
        (("--game", "minatar_brekout"), "Did you mean 'minatar_breakout'"),
    ],
)
def test_evaluation_refuses(trained, args, said, capsys):
    run("evaluate", trained, *args, expect=2)
    assert said in capsys.readouterr().err


def test_evaluation_of_a_folder_without_runs(tmp_path, capsys):
    run("evaluate", tmp_path, expect=2)
    assert "no runs in" in capsys.readouterr().err


def test_a_picture_shows_the_first_channel_that_is_on():
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[0, 1, 2] = frame[1, 0, 1] = frame[1, 0, 2] = 255
    drawn = picture(frame, size=2)
    assert drawn[0, 0].tolist() == [0, 0, 0]
    assert drawn[1, 0].tolist() == [86, 180, 233]
    assert drawn[0, 1].tolist() == [0, 158, 115]


def test_a_contact_sheet_in_reading_order(tmp_path):
    pictures = np.arange(1, 8, dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(2, 2).repeat(3, 3)
    contact_sheet(tmp_path / "s.png", pictures, columns=3, rows=2, gap=1)
    with Image.open(tmp_path / "s.png") as image:
        sheet = np.asarray(image)
    assert sheet.shape == (7, 10, 3)
    assert sheet[1:6:3, 1:9:3, 0].tolist() == [[1, 2, 3], [5, 6, 7]]  # the ends, and evenly between
