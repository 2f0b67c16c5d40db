"""Published curves behind ours: reading, names, the band by hand, and the real file where it lies beside the clone."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as oracle
from synthetic_games import make_games

from analysis import figures, pooled
from analysis.__main__ import main
from analysis.compare import compare
from analysis.load import load
from analysis.published import AGENTS, plain, read_published
from plasticity.errors import UserError

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data" / "dopamine_atari_curves.npz"
REAL = Path(os.environ.get("PLASTICITY_DOPAMINE_CURVES", _BESIDE))
needs_curves = pytest.mark.skipif(not REAL.is_file(), reason="Dopamine's published curves are not here")


@pytest.fixture
def made_up(tmp_path):
    """A file of one agent and two games, 5 seeds, 12 iterations: pong is 1, 2, 3, 4, 5 by seed plus the iteration."""
    returns = np.zeros((2, 2, 5, 12), np.float32)
    returns[0, 0] = np.arange(1, 6)[:, None] + np.arange(12)[None]
    returns[1, 0] = 100.0
    path = tmp_path / "curves.npz"
    np.savez(path, main=returns, main_games=["pong", "beamrider"], main_agents=[AGENTS["dqn"], "Rainbow"])
    return path


def with_curves(folder, path):
    study, frame = load(folder)
    return dataclasses.replace(study, published=read_published(path)), frame


def test_names(made_up):
    published = read_published(made_up)
    assert plain("Beam_Rider") == "beamrider"
    assert published.curve("beam_rider", "dqn").shape == (5, 12)
    assert published.curve("beam_rider", "rainbow") is not None
    assert published.curve("beam_rider", "c51") is None
    assert published.curve("defender", "dqn") is None


def test_band_by_hand(tmp_path, made_up):
    folder = make_games(tmp_path, games=("pong", "breakout", "beam_rider"), mitigations=("none", "layer_norm"))
    study, frame = with_curves(folder, made_up)
    table = compare(frame, study).set_index(["task", "frames"])
    # Up to 10M frames only, no row for breakout (not published), none for layer_norm.
    assert list(table.index) == [("pong", 5), ("pong", 10), ("beam_rider", 5), ("beam_rider", 10)]
    row = table.loc["pong", 5]
    # Fifth iteration: 5, 6, 7, 8, 9, with mean 7 and sd sqrt(2.5).
    assert row["mean"] == pytest.approx(7.0)
    assert row["sd"] == pytest.approx(2.5**0.5)
    assert (row["low"], row["high"]) == pytest.approx((7 - 3 * 2.5**0.5, 7 + 3 * 2.5**0.5))
    # No spread at all: 15 % of the mean.
    assert table.loc["beam_rider", 5][["low", "high"]].tolist() == pytest.approx([85.0, 115.0])
    assert not table.loc["beam_rider", 5]["inside"]
    own = frame[(frame["name"] == "return") & (frame["task"] == "pong") & (frame["combination"] == "none")]
    assert row["value"] == pytest.approx(own.loc[own["task_index"] == 4, "value"].mean())
    assert row["n"] == 3


def test_short_iterations_are_averaged_over_their_episodes(tmp_path, made_up):
    folder = make_games(tmp_path, games=("pong",), mitigations=("none",), seeds=[0], frames=500_000, iterations=10)
    study, frame = with_curves(folder, made_up)
    table = compare(frame, study)
    assert table["frames"].tolist() == [5]
    rows = frame[frame["task_index"].isin([8, 9])].pivot_table(index="task_index", columns="name", values="value")
    expected = np.average(rows["return"], weights=rows["episodes"])
    assert table["value"].iloc[0] == pytest.approx(expected)


def test_a_run_that_stopped_before_a_point_is_not_compared_there(tmp_path, made_up):
    status = {("pong", "none", 0): "running"}
    options = {"games": ("pong",), "mitigations": ("none",), "frames": 500_000, "iterations": 20, "status": status}
    study, frame = with_curves(make_games(tmp_path, **options, upto=9), made_up)
    assert compare(frame, study).set_index("frames")["n"].to_dict() == {5: 2, 10: 2}


def test_returns_carry_the_published_curve_and_minatar_does_not(tmp_path, made_up):
    module = {m.NAME: m for m in figures.discover()}["returns"]
    study, frame = with_curves(make_games(tmp_path, games=("pong",), mitigations=("none",)), made_up)
    plotted = module.select(frame, study)
    theirs = plotted[plotted["source"] == "dqn"]
    assert theirs["frames"].tolist() == list(range(1, 11))  # as far as ours
    assert theirs["value"].tolist() == pytest.approx([3.0 + k for k in range(10)])
    np.testing.assert_allclose(theirs["high"] - theirs["value"], 2.5**0.5, rtol=1e-6)
    assert "Dopamine" in plotted.attrs["note"]
    # MinAtar's games have names of Atari games.
    small = make_games(tmp_path, name="small", games=("breakout",), atari=False)
    study, frame = with_curves(small, made_up)
    assert set(module.select(frame, study)["source"]) == {"ours"}
    assert compare(frame, study).empty


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"text"])
def test_bad_files_are_user_errors(tmp_path, content):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*bad\.npz"):
        read_published(path)


def test_other_mistakes_are_user_errors(tmp_path, games_folder, capsys):
    with pytest.raises(UserError, match="no such file: nowhere"):
        read_published("nowhere")
    path = tmp_path / "other.npz"
    np.savez(path, main=np.zeros(3))
    with pytest.raises(UserError, match=r"other\.npz lacks main_games, main_agents"):
        read_published(path)
    np.savez(path, main=np.zeros((2, 1, 5, 9)), main_games=["pong"], main_agents=["DQN"])
    with pytest.raises(UserError, match=r"main has shape \(2, 1, 5, 9\)"):
        read_published(path)
    np.savez(path, main=np.array([{}], object), main_games=["pong"], main_agents=["DQN"])
    with pytest.raises(UserError, match="cannot read"):
        read_published(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(UserError, match="cannot read"):
        read_published(tmp_path / "one.npy")
    for command in ("figures", "report"):
        assert main([command, str(games_folder), "--out", str(tmp_path / "o"), "--dopamine", "nowhere"]) == 2
        assert "no such file: nowhere" in capsys.readouterr().err


@needs_curves
def test_real_curves_give_known_numbers():
    published = read_published(REAL)
    curve = published.curve("breakout", "dqn")
    assert curve.shape == (5, 199)
    assert curve[:, 4].mean() == pytest.approx(23.7, abs=0.05)
    assert curve[:, 4].std(ddof=1) == pytest.approx(0.59, abs=0.01)
    assert published.curve("road_runner", "rainbow")[:, 9].mean() == pytest.approx(33410, rel=1e-3)


@needs_curves
def test_report_with_real_curves(games_folder, tmp_path):
    out = tmp_path / "report.html"
    assert main(["report", str(games_folder), "--out", str(out), "--dopamine", str(REAL)]) == 0
    html = out.read_text()
    assert "of 6 points lie inside the published band" in html
    assert "these ran under: machado" in html


@needs_curves
def test_pooled_iqm_of_known_games():
    """Real scores, seeds of very different games pooled, against scipy."""
    random_human = {
        "breakout": (1.7, 30.5),
        "pong": (-20.7, 14.6),
        "seaquest": (68.4, 42054.7),
        "qbert": (163.9, 13455),
    }
    published = read_published(REAL)
    strata = [(published.curve(g, "dqn")[:, 9] - low) / (high - low) for g, (low, high) in random_human.items()]
    assert pooled.pooled_iqm(strata) == pytest.approx(oracle.trim_mean(np.stack(strata), 0.25, axis=None))
