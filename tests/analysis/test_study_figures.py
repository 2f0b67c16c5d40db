"""Figures: discovered, complete, byte-stable, and drawing numbers that an independent computation gives too."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats as oracle
from synthetic_study import make_study

from analysis import diagnostics, figures, lines, words
from analysis.load import load
from analysis.save import render, save_figures
from analysis.style import looks, separation, styled

MODULES = {m.NAME: m for m in figures.discover()}
OF_GAMES = {m.NAME for m in figures.discover() if getattr(m, "KIND", None) == "rl"}


@pytest.fixture(scope="module")
def saved(loaded, tmp_path_factory):
    """All figures of the synthetic study: (folder, files by figure)."""
    study, frame = loaded
    out = tmp_path_factory.mktemp("figures")
    return out, save_figures(frame, study, out)


def late_by_hand(frame):
    """Late score (tasks 10 and 11 of 12) of every run by plain pandas."""
    own = frame[(frame["name"] == "end_score") & (frame["task_index"] >= 10)]
    return own.groupby(["task", "combination", "seed"], observed=True)["value"].mean()


def test_every_file_of_the_folder_is_a_figure():
    assert set(MODULES) == {
        "heat_map", "learning_curves", "online_learning", "held_out", "effects",
        "diagnostics_over_time", "diagnostics_after_switch", "diagnostics_and_score",
        "returns", "normalized_scores", "performance_profiles",
    }  # fmt: skip
    for module in MODULES.values():
        assert module.TITLE
        assert module.CAPTION.endswith(".")
        assert module.__name__.rpartition(".")[2] == module.NAME


@pytest.mark.parametrize("name", sorted(set(MODULES) - OF_GAMES))
def test_pdf_png_numbers_and_caption(saved, name):
    out, written = saved
    assert sorted(p.name for p in written[name]) == [f"{name}.{e}" for e in ("csv", "pdf", "png", "txt")]
    assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    png = (out / f"{name}.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert len(png) > 10_000
    assert len(pd.read_csv(out / f"{name}.csv")) > 3
    caption = (out / f"{name}.txt").read_text()
    assert "Hesterberg 2015" in caption
    assert "75 runs, digest " in caption


def test_learning_curves_are_trimmed_means_over_seeds(saved, loaded):
    frame = loaded[1]
    plotted = pd.read_csv(saved[0] / "learning_curves.csv")
    own = frame[frame["name"] == "end_score"].groupby(["task", "combination", "task_index"], observed=True)["value"]
    expected = own.apply(lambda x: oracle.trim_mean(x, 0.25))
    ours = plotted.set_index(["task", "combination", "task_index"])["value"]
    assert ours.to_dict() == pytest.approx(expected.to_dict(), rel=1e-6)
    assert (plotted["low"] <= plotted["value"]).all()
    assert (plotted["high"] >= plotted["value"]).all()
    assert plotted["low"].ge(0).all()
    assert plotted["high"].le(1).all()
    assert (plotted["n"] == 5).all()


def test_heat_map_has_late_scores_and_paired_gaps(saved, loaded):
    plotted = pd.read_csv(saved[0] / "heat_map.csv").set_index(["task", "combination"])
    values = late_by_hand(loaded[1])
    for (task, combination), row in plotted.iterrows():
        own = values[task, combination]
        assert row["value"] == pytest.approx(oracle.trim_mean(own, 0.25), rel=1e-6)
        if combination != "full_reset":
            gap = oracle.trim_mean(own - values[task, "full_reset"], 0.25)
            assert row["gap"] == pytest.approx(gap, rel=1e-5)
    assert plotted["gap"].isna().sum() == 3


def test_diagnostics_over_time_are_those_at_the_end_of_each_task(saved, loaded):
    frame = loaded[1]
    plotted = pd.read_csv(saved[0] / "diagnostics_over_time.csv")
    assert set(plotted["name"]) == {"dead_units", "effective_rank", "weight_norm"}
    assert set(plotted["step"]) == {400 * t + 399 for t in range(12)}
    row = plotted.iloc[123]
    place = {k: row[k] for k in ("name", "task", "combination", "step")}
    own = frame.loc[np.logical_and.reduce([frame[k] == v for k, v in place.items()]), "value"]
    assert row["value"] == pytest.approx(oracle.trim_mean(own, 0.25), rel=1e-6)


def test_after_switch_averages_the_last_switches_of_each_run(saved, loaded):
    frame = loaded[1]
    plotted = pd.read_csv(saved[0] / "diagnostics_after_switch.csv")
    assert sorted(set(plotted["since"])) == [0, 1, 2, 5, 10, 50, 200, 399]
    row = plotted[
        (plotted["name"] == "dead_units") & (plotted["combination"] == "none") & (plotted["since"] == 10)
    ].iloc[0]
    own = frame[(frame["name"] == "dead_units") & (frame["task"] == row["task"]) & (frame["combination"] == "none")]
    own = own[(own["step"] % 400 == 10) & (own["task_index"] >= 7)]
    expected = oracle.trim_mean(own.groupby("seed")["value"].mean(), 0.25)
    assert row["value"] == pytest.approx(expected, rel=1e-6)


def test_scatter_has_a_point_a_run_and_spearmans_rho(saved, loaded):
    plotted = pd.read_csv(saved[0] / "diagnostics_and_score.csv")
    assert len(plotted) == 75 * 3
    values = late_by_hand(loaded[1])
    for (_, task), own in plotted.groupby(["name", "task"]):
        keys = list(zip(own["task"], own["combination"], own["seed"], strict=True))
        np.testing.assert_allclose(own["late_score"], values.loc[keys], rtol=1e-6)
        ranks = own["value"].rank(), own["late_score"].rank()
        assert own["rho"].iloc[0] == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-6), task


def test_effects_are_the_decided_contrasts(saved):
    plotted = pd.read_csv(saved[0] / "effects.csv")
    assert plotted["claim"].tolist() == ["T1", "T2", "T3", "T4", "T4", "T5", "T5"]
    assert plotted["verdict"].iloc[:3].tolist() == ["reproduced", "not reproduced", "undecided"]
    assert (plotted["quantity"] == "score").all()


def test_same_records_same_bytes(saved, loaded, tmp_path):
    study, frame = loaded
    names = ("heat_map", "diagnostics_and_score")
    again = save_figures(frame.sample(frac=1, random_state=0), study, tmp_path, names)
    for path in itertools.chain(*again.values()):
        assert path.read_bytes() == (saved[0] / path.name).read_bytes(), path.name
    module = MODULES["effects"]
    with styled():
        one, two = (render(module.draw(module.select(frame, study), study), "svg") for _ in range(2))
    assert one == two


def test_a_study_of_little_draws_what_there_is(tmp_path):
    folder = make_study(tmp_path, tasks=1, factors=1, seeds=[0], num_tasks=3, names=[])
    study, frame = load(folder)
    written = save_figures(frame, dataclasses.replace(study, claims=(), reference=None), tmp_path / "out")
    drawn = {name for name, paths in written.items() if paths}
    assert drawn == {"learning_curves", "online_learning", "held_out", "heat_map"}


def test_flawed_study_draws(flawed, tmp_path):
    study, frame = load(flawed)
    written = save_figures(frame, study, tmp_path, ("heat_map", "diagnostics_over_time", "effects"))
    assert all(written.values())
    # The two tasks that the running run has reached are drawn with it.
    curves = MODULES["learning_curves"].select(frame, study)
    none = curves[(curves["task"] == "input_permutation") & (curves["combination"] == "none")]
    assert none["n"].tolist() == [3] * 2 + [2] * 10


def test_colours_are_distinct_for_all_eyes_and_the_same_in_a_partial_study(tmp_path):
    folder = make_study(tmp_path, tasks=1, factors=3, seeds=[0], num_tasks=2, names=[])
    study = load(folder)[0]
    style = looks(study)
    assert len(style) == 9
    assert separation([look.color for look in style.values()]) > 0.08
    assert style["layer_norm"].color == "#0072b2"
    assert len({(look.color, look.marker) for look in style.values()}) == 9
    partial = dataclasses.replace(study, runs=study.runs[study.runs["combination"] != "layer_norm"])
    assert all(style[c] == look for c, look in looks(partial).items())


def test_limits_end_where_the_quantity_ends():
    table = pd.DataFrame({"name": ["dead_units", "weight_norm", "log_ratio"], "value": [0.9, 2.0, -1.0]})
    cut = diagnostics.bounded(table.assign(low=[-0.2, -1.0, -3.0], high=[1.4, 5.0, 1.0]))
    assert cut["low"].tolist() == [0.0, 0.0, -3.0]
    assert cut["high"].tolist() == [1.0, 5.0, 1.0]
    wide = pd.Series([1e-4, 1e-2, 1.0])
    assert diagnostics.logarithmic("gradient_norm", wide)
    assert not diagnostics.logarithmic("dead_units", wide)
    assert not diagnostics.logarithmic("gradient_norm", -wide)


def test_numbers_in_words():
    assert words.number(-0.314) == "−0.31"
    assert words.number(-0.001) == "0.00"
    assert words.number(0.314, signed=True) == "+0.31"
    assert words.number(float("nan")) == "n/a"
    assert words.span(0.298, 0.317) == "[0.30, 0.32]"
    assert words.span(-0.001, 0.021, signed=True) == "[−0.001, +0.021]"
    assert words.span(1204.0, 1480.0) == "[1,204, 1,480]"
    assert words.listed(["a", "b", "c"]) == "a, b and c"


def test_of_many_combinations_the_best_are_drawn(tmp_path):
    """Lines thin out beyond what an eye can tell apart; no mitigation and the fresh network stay."""
    study, frame = load(make_study(tmp_path, tasks=2, seeds=range(3), num_tasks=5, names=[]))
    few, note = lines.few(frame, study)
    assert len(few) == len(frame)
    assert note == ""
    copies = []
    for k in range(20):
        more = frame[frame["combination"] == "layer_norm"].copy()
        more["combination"] = more["mitigations"] = f"l2({k + 1})"
        more["run_id"] = more["run_id"].astype(str) + f"-{k}"
        more["value"] = more["value"] * (0.5 + 0.01 * k)
        copies.append(more)
    wide = pd.concat(
        [frame.astype({"combination": str, "mitigations": str, "run_id": str}), *copies], ignore_index=True
    )
    runs = [study.runs]
    for k in range(20):
        own = study.runs[study.runs["combination"] == "layer_norm"]
        name = f"l2({k + 1})"
        runs.append(own.assign(combination=name, mitigations=name, run_id=own["run_id"] + f"-{k}"))
    many = replace(study, runs=pd.concat(runs, ignore_index=True))
    few, note = lines.few(wide, many)
    kept = set(few["combination"])
    assert len(kept) == lines.MOST
    assert {"none", "full_reset", "layer_norm", "l2(20)"} <= kept
    assert "l2(1)" not in kept
    assert f"12 of {len(many.combinations)} combinations" in note
    plotted = figures.numbers(MODULES["learning_curves"], wide, many)
    assert note in plotted.attrs["note"]
    assert set(plotted["combination"]) == kept


def test_colours_of_many_factors_are_dealt_in_time(loaded):
    """All subsets of sixty factors are never listed."""
    study, _ = loaded
    many = replace(study, factors=tuple((f"l2({k})", f"L2 {k}") for k in range(60)))
    assert set(looks(many)) == set(many.combinations)


def test_baselines_stand_beside_the_online_score(tmp_path):
    """Of all combinations the same, so one row a task kind and task; thin lines with their name."""
    study, frame = load(make_study(tmp_path, tasks=2, seeds=[0, 1], num_tasks=6, names=[]))
    plotted = MODULES["online_learning"].select(frame, study)
    own = plotted[plotted["combination"] == "repeat last"]
    assert own.groupby("task")["value"].agg(["size", "mean"]).round(6).to_numpy().tolist() == [[6, 0.4], [6, 0.3]]
    assert set(plotted["combination"]) - {"repeat last"} == set(study.combinations)
    drawn = MODULES["online_learning"].draw(plotted, study)
    assert all("repeat last" in [t.get_text() for t in axes.texts] for axes in drawn.axes)
    assert "repeat last" not in MODULES["learning_curves"].select(frame, study)["combination"].to_numpy()
