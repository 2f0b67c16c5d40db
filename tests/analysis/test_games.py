"""Reinforcement-learning studies: reading, late scores with gaps, divergence, figures, words, unfinished runs."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as oracle
from synthetic_games import DIAGNOSTICS, UPDATES, make_games
from synthetic_study import make_study, write_part

from analysis import diagnostics, figures, words
from analysis.__main__ import main
from analysis.games import aggregates
from analysis.load import load
from analysis.outcomes import late, per_task, window
from analysis.report import build
from analysis.returns import held
from analysis.save import save_figures
from analysis.study import Task
from analysis.summary import summarise_study
from plasticity import record
from plasticity.errors import UserError

MODULES = {m.NAME: m for m in figures.discover()}


def test_study_is_what_was_declared(games):
    study, _ = games
    pong = study.task("pong")
    assert study.rl
    assert (pong.bounded, pong.worst, pong.frames, pong.games) == (False, 0.0, 1_000_000, ("pong",))
    assert (pong.random, pong.human, pong.switch_every, pong.steps) == (-20.7, 14.6, 0, None)
    assert pong.normalised
    assert study.comparable
    assert study.agent("none") == "dqn"


def test_a_supervised_study_has_the_defaults(loaded):
    task = loaded[0].tasks[0]
    assert not loaded[0].rl
    assert (task.bounded, task.worst, task.frames, task.games, task.switch_every) == (True, 0.0, None, (), 1)


def test_iterations_at_the_same_update_stay_apart(games):
    study, frame = games
    run = study.runs["run_id"].iloc[0]
    own = per_task(frame, "end_score")
    own = own[own["run_id"] == run]
    assert own["task_index"].tolist() == list(range(10))
    assert own["step"].tolist()[:4] == [0, 0, UPDATES, 2 * UPDATES]


def test_the_copy_of_a_run_that_got_further_wins_although_no_update_was_made(tmp_path):
    status = {("pong", "none", 0): "running"}
    options = {"games": ("pong",), "mitigations": ("none",), "seeds": [0], "status": status}
    folder = make_games(tmp_path, **options, upto=1)
    further = make_games(tmp_path / "b", **options, upto=2)
    (record.group_folders(further)[0]).rename(folder / "groups" / "z-regrouped")
    _, frame = load(folder)
    assert frame["task_index"].max() == 1  # both copies stand at update 0


def test_scores_are_not_clipped(games):
    study, frame = games
    table = MODULES["learning_curves"].select(frame, study)
    assert table["high"].max() > 1
    assert Task("a", "a").clipped(pd.DataFrame({"low": [-1.0], "high": [2.0]})).values.tolist() == [[0.0, 1.0]]


def test_divergence_gives_the_worst_score_of_the_game(tmp_path):
    status = {("breakout", "none", 0): "diverged"}
    atari = make_games(tmp_path, games=("breakout",), mitigations=("none",), status=status)
    own = load(atari)[1]
    own = own[(own["status"] == "diverged") & (own["task_index"] >= 5)]
    assert own.loc[own["name"] == "end_score", "value"].tolist() == [0.0] * 5
    assert own.loc[own["name"] == "return", "value"].tolist() == [1.7] * 5
    small = make_games(tmp_path, name="small", games=("breakout",), mitigations=("none",), status=status, atari=False)
    own = load(small)[1]
    own = own[(own["status"] == "diverged") & (own["task_index"] >= 5)]
    assert own.loc[own["name"] == "end_score", "value"].tolist() == [0.5] * 5


def test_a_silent_iteration_before_a_divergence_is_not_punished(tmp_path):
    status = {("pong", "none", 0): "diverged"}
    folder = make_games(tmp_path, games=("pong",), mitigations=("none",), status=status, silent=2, upto=4)
    own = per_task(load(folder)[1], "end_score")
    own = own[own["status"] == "diverged"]
    assert own["task_index"].tolist() == list(range(2, 10))
    assert (own["value"].iloc[:2] != 0).all()
    assert (own["value"].iloc[2:] == 0).all()


def test_nan_scores_of_games_are_no_scores(tmp_path):
    folder = make_games(tmp_path, games=("pong",), mitigations=("none",), seeds=[0], iterations=5, silent=1)
    group = record.group_folders(folder)[0]
    run = record.read_runs(group)[0].run_id
    write_part(
        record.part_path(group, 1),
        pd.DataFrame([(run, 0, 0, "end_score", "", math.nan, "")], columns=list(record.COLUMNS)),
    )
    study, frame = load(folder)
    assert per_task(frame, "end_score")["task_index"].tolist() == [1, 2, 3, 4]
    assert len(late(frame, study)) == 1


def test_nothing_is_known_of_a_diverged_sequence_of_games_in_raw_returns(tmp_path):
    status = {("pong-breakout", "none", 0): "diverged"}
    folder = make_games(tmp_path, games=(("pong", "breakout"),), mitigations=("none",), status=status)
    own = load(folder)[1]
    own = own[own["status"] == "diverged"]
    assert len(own[own["name"] == "end_score"]) == 10
    assert len(own[own["name"] == "return"]) == 5


def test_window_with_gaps_by_hand():
    rows = pd.DataFrame({"run_id": "r", "combination": "none", "mitigations": "none", "seed": 0, "status": "done",
                         "task_index": [0, 3, 5], "value": [1.0, 2.0, 6.0]})  # fmt: skip
    assert window(rows, 6, last=3).empty
    assert window(rows, 6, last=3, gaps=True)["value"].tolist() == [4.0]
    running = rows.assign(status="running")
    assert window(running, 8, last=3, gaps=True).empty  # has not come to its end
    assert window(running, 8, first=2, gaps=True)["value"].tolist() == [1.0]  # has come past the first two


def test_late_scores(games):
    study, frame = games
    values = late(frame, study)
    rows = frame[(frame["name"] == "end_score") & (frame["task_index"] >= 8)]
    expected = rows.groupby("run_id", observed=True)["value"].mean()
    assert values.set_index("run_id")["value"].to_dict() == pytest.approx(expected.to_dict())


def test_returns_figure(games):
    study, frame = games
    plotted = MODULES["returns"].select(frame, study)
    row = plotted[(plotted["task"] == "beam_rider") & (plotted["combination"] == "layer_norm")].iloc[6]
    assert row["frames"] == 7.0
    own = frame[(frame["name"] == "return") & (frame["task"] == "beam_rider") & (frame["task_index"] == 6)]
    own = own[own["combination"] == "layer_norm"]["value"]
    assert row["value"] == pytest.approx(oracle.trim_mean(own, 0.25))
    assert row["n"] == 3


def test_returns_of_a_sequence_have_a_panel_a_game_and_gaps_between_visits(tmp_path):
    study, frame = load(make_games(tmp_path, games=(("pong", "breakout"),), iterations=12))
    plotted = MODULES["returns"].select(frame, study)
    visits = plotted.groupby(["game", "visit"], observed=True)["task_index"].agg(["min", "max"])
    assert visits.to_dict("index") == {
        ("pong", 0): {"min": 0, "max": 3}, ("breakout", 1): {"min": 4, "max": 7}, ("pong", 2): {"min": 8, "max": 11},
    }  # fmt: skip
    assert MODULES["normalized_scores"].select(frame, study).empty  # one sequence is not several games


def test_normalised_scores_pool_runs_and_games(games):
    study, frame = games
    plotted = MODULES["normalized_scores"].select(frame, study)
    row = plotted[(plotted["combination"] == "none") & (plotted["frames"] == 4.0)].iloc[0]
    own = frame[(frame["name"] == "end_score") & (frame["task_index"] == 3) & (frame["combination"] == "none")]["value"]
    assert len(own) == 9
    assert row["value"] == pytest.approx(oracle.trim_mean(own, 0.25))
    assert row["low"] < row["value"] < row["high"]


def test_normalised_scores_go_as_far_as_every_game(tmp_path):
    status = {("pong", "none", s): "running" for s in range(3)} | {("breakout", "layer_norm", 0): "planned"}
    folder = make_games(tmp_path, games=("pong", "breakout"), status=status, upto=3)
    study, frame = load(folder)
    plotted = MODULES["normalized_scores"].select(frame, study)
    assert plotted.groupby("combination")["frames"].max().to_dict() == {"none": 3.0, "layer_norm": 10.0}
    assert plotted[plotted["combination"] == "layer_norm"]["n"].tolist() == [2] * 10


def test_an_iteration_without_an_episode_holds_the_score_before_it(tmp_path):
    folder = make_games(tmp_path, games=("pong",), mitigations=("none",), seeds=[0], silent=2, iterations=5)
    study, frame = load(folder)
    frame = frame[~((frame["name"] == "end_score") & (frame["task_index"] == 3))]
    column = held(frame, study.task("pong"), "none")[0]
    assert column.isna().tolist() == [True, True, False, False, False]
    assert column[3] == column[2]


def test_performance_profile(games):
    study, frame = games
    plotted = MODULES["performance_profiles"].select(frame, study)
    values = late(frame, study)
    own = plotted[plotted["combination"] == "none"]
    assert set(own["runs"]) == {9}
    for row in own.iloc[::17].itertuples():
        assert row.value == pytest.approx((values.loc[values["combination"] == "none", "value"] > row.tau).mean())
    assert plotted["low"].between(0, 1).all()


def test_aggregates(games):
    study, frame = games
    table = aggregates(frame, study).set_index(["combination", "statistic"])
    values = late(frame, study)
    own = values.loc[values["combination"] == "layer_norm"]
    assert table.loc[("layer_norm", "IQM"), "value"] == pytest.approx(oracle.trim_mean(own["value"], 0.25))
    gap = 1 - np.minimum(own["value"], 1).mean()
    assert table.loc[("layer_norm", "Optimality gap"), "value"] == pytest.approx(gap)
    assert table.loc[("layer_norm", "Mean"), "n"] == 9


def test_diagnostics_over_time_keep_dense_records(games):
    study, frame = games
    plotted = MODULES["diagnostics_over_time"].select(frame, study)
    assert set(plotted["name"]) == set(DIAGNOSTICS)  # and no episodes, epsilon or game
    assert plotted["step"].nunique() == 8 * UPDATES // 300
    row = plotted.iloc[40]
    place = {k: row[k] for k in ("name", "task", "combination", "step")}
    own = frame.loc[np.logical_and.reduce([frame[k] == v for k, v in place.items()]), "value"]
    assert row["value"] == pytest.approx(oracle.trim_mean(own, 0.25))


def test_more_records_than_a_line_can_show_are_averaged():
    step = np.arange(1, 1001)
    frame = pd.DataFrame({"run_id": "r", "task": "t", "combination": "none", "seed": 0, "name": "loss", "step": step,
                          "value": step.astype(float)})  # fmt: skip
    table = diagnostics.over_run(frame)
    assert len(table) <= diagnostics.BINS + 1
    # Bins of 6 updates: the second holds 6..11 and is drawn at 9.
    assert table.iloc[1][["step", "value"]].tolist() == [9, 8.5]


def test_after_a_switch(tmp_path, games):
    assert MODULES["diagnostics_after_switch"].select(games[1], games[0]).empty
    study, frame = load(make_games(tmp_path, games=(("pong", "breakout"),), iterations=12, mitigations=("none",)))
    rows = diagnostics.since_switch(frame, study, 5)
    # Iterations 4..7 and 8..11 come after a switch, at updates 2000 and 6000: records at 2100, 2400, ... and 6000 + ...
    assert rows["since"].min() >= 0
    assert rows["since"].max() <= 4 * UPDATES
    early = rows[(rows["name"] == "dormant_units") & (rows["since"] == rows["since"].min()) & (rows["seed"] == 0)]
    width = 4 * UPDATES // 13  # 13 or 14 records a stretch
    own = frame[(frame["name"] == "dormant_units") & (frame["seed"] == 0)]
    near = own[own["step"].between(2001, 2000 + width) | own["step"].between(6001, 6000 + width)]
    assert early["value"].iloc[0] == pytest.approx(near["value"].mean(), abs=0.03)


def test_words(games):
    study, frame = games
    summary = summarise_study(frame, study)
    assert summary.headline.startswith("Layer norm reached the highest late score: +")
    text = " ".join(summary.paragraphs) + build(study, frame)
    assert "the mean score over the last fifth of the iterations" in text
    assert "on every game" in text
    for wrong in ("task kind", "tasks", "network trainable", "score 0", "scores 0", "accuracy"):
        assert wrong not in text, wrong


def test_every_figure_of_games_is_written_and_speaks_of_games(games, tmp_path):
    study, frame = games
    written = save_figures(frame, study, tmp_path)
    assert {name for name, paths in written.items() if paths} == {
        "heat_map", "normalized_scores", "returns", "performance_profiles", "learning_curves", "diagnostics_over_time",
        "diagnostics_and_score",
    }  # fmt: skip
    assert "online_learning" not in written
    for path in tmp_path.glob("*.txt"):
        assert "task" not in path.read_text(), path.name
    assert "percentile intervals of a stratified bootstrap" in (tmp_path / "normalized_scores.txt").read_text()


def test_raw_returns_of_different_games_are_never_averaged(tmp_path):
    study, frame = load(make_games(tmp_path, games=("breakout", "freeway"), atari=False))
    assert not study.comparable
    summary = summarise_study(frame, study)
    assert summary.ranking.best is None
    assert summary.headline.startswith("MinAtar Breakout: Layer norm reached")
    assert "MinAtar Freeway: Layer norm reached" in summary.headline
    page = build(study, frame)
    assert "none are averaged over games" in page
    assert ">All games</th>" not in page
    assert not save_figures(frame, study, tmp_path / "o", ("learning_curves",))["learning_curves"]  # it is `returns`


def test_agents_are_named_without_what_they_bring(tmp_path):
    study, frame = load(make_games(tmp_path, games=("pong",), agents=("dqn", "rainbow"), mitigations=("none",)))
    assert study.combinations == ["none @ agent=dqn", "none @ agent=rainbow"]
    assert [study.label(c) for c in study.combinations] == ["dqn", "rainbow"]
    assert study.agent("none @ agent=rainbow") == "rainbow"
    assert summarise_study(frame, study).headline.startswith("Rainbow scored highest: ")


def test_many_games_are_rows(games):
    study, frame = games
    tasks = tuple(dataclasses.replace(study.tasks[0], key=f"g{i}", label=f"Game {i}") for i in range(12))
    cells = MODULES["heat_map"].select(frame, study)
    own = cells[cells["task"] == "pong"]
    plotted = pd.concat([own.assign(task=t.key) for t in tasks], ignore_index=True)
    figure = MODULES["heat_map"].draw(plotted, dataclasses.replace(study, tasks=tasks))
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert labels == [f"Game {i}" for i in range(12)]


@pytest.mark.parametrize(
    ("upto", "silent", "said"),
    [
        (1, 1, "No verdict yet: no episode has ended in any run."),
        (1, 0, "No verdict yet: no run has come to its last iteration."),
        (4, 2, "No verdict yet: no run has come to its last iteration."),
    ],
)
def test_the_first_minutes(tmp_path, capsys, upto, silent, said):
    status = {("pong", "none", 0): "running", ("pong", "layer_norm", 0): "planned"}
    folder = make_games(tmp_path, games=("pong",), seeds=[0], status=status, upto=upto, silent=silent, iterations=200)
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert said in page
    assert f"Pong: 0 to {upto} of 200 iterations ({upto}M of 200M frames)" in page
    assert "There are no late scores yet" in page
    for command in ("figures", "table", "verdict"):
        assert main([command, str(folder)]) == 0
    assert main(["export", str(folder), "--out", str(tmp_path / "x")]) == 0
    assert (folder / "figures" / "returns.png").exists() == (silent < upto)
    assert "Traceback" not in capsys.readouterr().err


def test_before_the_first_save(tmp_path, capsys):
    folder = make_games(
        tmp_path, games=("pong",), seeds=[0], mitigations=("none",), status={("pong", "none", 0): "planned"}
    )
    assert main(["report", str(folder)]) == 2
    assert "no metrics recorded yet" in capsys.readouterr().err


def test_a_bare_group_of_games_is_known_by_its_agents(games_folder):
    study, frame = load(record.group_folders(games_folder)[0])
    assert study.rl
    assert not study.tasks[0].bounded
    assert study.tasks[0].switch_every == 0
    assert frame["task_index"].max() == 9


def test_kinds_do_not_mix(tmp_path, games_folder):
    other = make_study(tmp_path, tasks=1, factors=1, seeds=[0], num_tasks=2, names=[])
    with pytest.raises(UserError, match=r"different kinds: games \(rl\), factorial \(supervised\)"):
        load([games_folder, other])


def test_decimals_fit_the_size():
    assert words.digits_for([0.5, -9.9]) == 2
    assert words.digits_for([12.0, 0.1]) == 1
    assert words.digits_for([4321.0]) == 0
    assert words.digits_for([math.nan]) == 2
    assert words.places(math.nan, math.nan, 12345.6) == 0
    assert words.places(math.nan, math.nan, 0.5) == 2
