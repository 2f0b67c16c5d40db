"""Reading study folders: the tidy frame, duplicates, divergence, and errors that name the file."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from synthetic_study import STEPS, make_study, run_rows, write_part

from analysis import metrics as module
from analysis.load import load, resolve
from analysis.outcomes import by_seed, late, paired, per_task, window
from analysis.study import split_terms
from plasticity import record
from plasticity.claims import Outcome
from plasticity.errors import UserError


def lines_of(group):
    return {line.run_id: line for line in record.read_runs(group)}


def test_study_is_what_was_declared(loaded):
    study, frame = loaded
    assert [t.key for t in study.tasks] == ["label_reset", "input_permutation", "target_drift"]
    assert study.combinations == ["none", "layer_norm", "l2(1e-3)", "layer_norm+l2(1e-3)", "full_reset"]
    assert [study.label(c) for c in study.combinations][::2] == ["no mitigation", "L2", "fresh network"]
    assert len(study.runs) == study.planned == 75
    assert frame["run_id"].nunique() == 75
    assert set(frame["layer"]) == {""}


def test_numbers_arrive_as_written(loaded):
    study, frame = loaded
    run = study.runs.iloc[7]
    index = [t.key for t in study.tasks].index(run["task"])
    written = run_rows(run["run_id"], index, run["mitigations"], run["seed"], 12, ["dead_units"])
    own = frame[frame["run_id"] == run["run_id"]]
    for name in ("end_score", "dead_units"):
        ours = own[own["name"] == name].sort_values("step")["value"].to_numpy()
        theirs = written[(written["name"] == name) & (written["layer"] == "")].sort_values("step")["value"].to_numpy()
        np.testing.assert_array_equal(ours, theirs)


def test_per_layer_only_becomes_the_mean_over_layers(tmp_path):
    folder = make_study(tmp_path, tasks=1, factors=1, seeds=[0], num_tasks=2, names=[])
    group = record.group_folders(folder)[0]
    run = next(iter(lines_of(group)))
    rows = [(run, STEPS, 0, "srank", layer, value, "") for layer, value in (("a", 2.0), ("b", 4.0))]
    write_part(record.part_path(group, 2), pd.DataFrame(rows, columns=list(record.COLUMNS)))
    _, frame = load(folder)
    own = frame[frame["name"] == "srank"]
    assert own["value"].tolist() == [3.0]
    assert own["layer"].tolist() == ["mean over layers"]


def test_a_finished_run_wins_over_its_duplicates(tmp_path):
    folder = make_study(tmp_path, tasks=1, factors=1, seeds=[0, 1], num_tasks=4, names=[])
    group = record.group_folders(folder)[0]
    # The same runs, regrouped, got to task 1 with other numbers; the group sorts before the finished one.
    other = folder / "groups" / "a-regrouped"
    shutil.copytree(group, other)
    (other / "metrics" / "part-00001.parquet").unlink()
    lines = [line._replace(status="running") for line in record.read_runs(group)]
    record.write_runs(other, lines)
    study, frame = load(folder)
    assert set(study.runs["status"]) == {"done"}
    assert study.runs["run_id"].is_unique
    assert len(per_task(frame, "end_score")) == 4 * len(lines)


def test_a_part_saved_twice_counts_once(tmp_path):
    folder = make_study(tmp_path, tasks=1, factors=1, seeds=[0], num_tasks=4, names=["dead_units"])
    before = load(folder)[1]
    group = record.group_folders(folder)[0]
    shutil.copy(record.part_path(group, 1), record.part_path(group, 2))
    pd.testing.assert_frame_equal(load(folder)[1], before)


def test_parts_beside_the_joined_file_of_a_group_do_not_count(tmp_path):
    folder = make_study(tmp_path, tasks=1, factors=1, seeds=[0], num_tasks=4, names=[])
    metrics = record.group_folders(folder)[0] / "metrics"
    whole = load(folder)[1]
    joined = duckdb.connect().read_parquet(str(metrics / "*.parquet")).df()
    write_part(metrics / "all.parquet", joined)
    write_part(metrics / "part-00001.parquet", joined.assign(value=7.0))
    pd.testing.assert_frame_equal(load(folder)[1], whole)


def test_a_group_that_finishes_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    """Its parts are joined into one file and removed after they were listed."""
    folder = make_study(tmp_path, tasks=1, seeds=range(2), num_tasks=4, names=[])
    whole = load(folder)[1]
    [metrics] = folder.glob("groups/*/metrics")
    check, calls = module._check, []

    def joined_meanwhile(connection, parts):
        calls.append(parts)
        if len(calls) == 1:
            both = duckdb.connect().read_parquet(str(metrics / "*.parquet")).df()
            write_part(metrics / module.COMPACTED, both)
            for part in parts:
                Path(part).unlink()
        check(connection, parts)

    monkeypatch.setattr(module, "_check", joined_meanwhile)
    again = load(folder)[1]
    assert len(calls) == 2
    pd.testing.assert_frame_equal(again, whole)


def test_a_sweep_of_ones_own_finds_its_reference_and_short_labels(tmp_path):
    folder = make_study(tmp_path, tasks=2, factors=1, seeds=[0], num_tasks=2, names=[])
    meta = record.read_json(folder / "study.json")
    tasks = [{**t, "label": t["key"]} for t in meta["tasks"]]
    record.write_json(folder / "study.json", {**meta, "reference": None, "tasks": tasks})
    study = load(folder)[0]
    assert study.reference == "full_reset"
    assert [t.label for t in study.tasks] == ["Label reset", "Input permutation"]


def test_diverged_runs_score_zero_from_there_on(flawed):
    study, frame = load(flawed)
    run = study.runs[study.runs["status"] == "diverged"].iloc[0]
    own = per_task(frame, "end_score")
    own = own[own["run_id"] == run["run_id"]]
    assert own["task_index"].tolist() == list(range(12))
    assert (own["value"].iloc[:6] > 0.3).all()
    assert (own["value"].iloc[6:] == 0).all()
    losses = per_task(frame, "end_loss")
    assert (losses["run_id"] == run["run_id"]).sum() == 6


def test_nan_scores_are_zero_and_other_nans_stay(tmp_path):
    folder = make_study(tmp_path, tasks=1, factors=1, seeds=[0], num_tasks=4, names=[])
    group = record.group_folders(folder)[0]
    path = record.part_path(group, 1)
    rows = duckdb.connect().read_parquet(str(path)).df()
    rows.loc[rows["task"] == 3, "value"] = np.nan
    write_part(path, rows)
    _, frame = load(folder)
    last = frame[frame["task_index"] == 3]
    assert (last.loc[last["name"] == "end_score", "value"] == 0).all()
    assert last.loc[last["name"] == "end_loss", "value"].isna().all()


def test_partial_studies_load(flawed):
    study, frame = load(flawed)
    assert study.planned == 50
    assert len(study.runs) == 49
    complete = late(frame, study).groupby(["task", "combination"], observed=True).size()
    assert complete[("label_reset", "layer_norm")] == 5  # the diverged one counts
    assert complete[("label_reset", "l2(1e-3)")] == 4
    assert complete[("input_permutation", "none")] == 2


def test_window_by_hand():
    rows = pd.DataFrame({"run_id": "r", "combination": "none", "mitigations": "none", "seed": 0, "status": "done",
                         "task_index": range(4), "value": [1.0, 2.0, 4.0, 8.0]})  # fmt: skip
    assert window(rows, 4, last=2)["value"].tolist() == [6.0]
    assert window(rows, 4, first=1)["value"].tolist() == [1.0]
    assert window(rows, 4)["value"].tolist() == [3.75]
    assert window(rows, 5, last=2).empty  # task 4 has not been reached


def test_outcomes_and_differences_are_paired_by_seed(loaded):
    study, frame = loaded
    series = by_seed(frame, study, Outcome("label_reset", "none", last=3))
    rows = per_task(frame, "end_score")
    rows = rows[(rows["task"] == "label_reset") & (rows["mitigations"] == "none") & (rows["task_index"] >= 9)]
    assert series.to_dict() == pytest.approx(rows.groupby("seed")["value"].mean().to_dict())
    values = late(frame, study)
    both = paired(values, "layer_norm", "none").set_index(["task", "seed"])["value"]
    one = values[values["task"] == "target_drift"].pivot_table(
        index="seed", columns="mitigations", values="value", observed=True
    )
    assert both["target_drift"].to_dict() == pytest.approx((one["layer_norm"] - one["none"]).to_dict())


def test_what_else_varies_is_part_of_the_combination(tmp_path):
    folder = make_study(tmp_path, tasks=1, factors=1, seeds=[0, 1], num_tasks=2, names=[])
    group = record.group_folders(folder)[0]
    lines = record.read_runs(group)
    wide = [x._replace(run_id=f"w{i}", config={**x.config, "network": "mlp(width=512)"}) for i, x in enumerate(lines)]
    record.write_runs(group, [*lines, *wide])
    rows = pd.concat([run_rows(x.run_id, 0, "none", x.seed, 2, []) for x in wide])
    write_part(record.part_path(group, 2), rows)
    study, frame = load(folder)
    assert "none @ network=mlp" in study.combinations
    assert study.label("none @ network=mlp(width=512)") == "no mitigation (network=mlp(width=512))"
    with pytest.raises(LookupError, match="several configurations"):
        by_seed(frame, study, Outcome("label_reset", "none"))


def test_studies_are_read_together(tmp_path, folder):
    more = make_study(tmp_path, name="more", seeds=range(5, 7))
    study, _ = load([folder, more])
    assert study.runs["seed"].nunique() == 7
    assert study.name == "factorial+more"
    assert len(study.claims) == 5
    group = load(record.group_folders(more)[0])[0]
    assert [t.key for t in group.tasks] == ["input_permutation"]
    assert group.tasks[0].num_tasks == 12


def test_terms_of_a_combination():
    assert split_terms("none") == []
    assert split_terms("layer_norm+redo(tau=0.1, every=10)+l2(1e-3)") == [
        "layer_norm",
        "redo(tau=0.1, every=10)",
        "l2(1e-3)",
    ]


def test_errors_name_what_is_wrong(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no such folder: nowhere"):
        load("nowhere")
    folder = make_study(tmp_path / "runs", tasks=1, factors=1, seeds=[0], num_tasks=2, names=[])
    assert resolve("factorial").resolve() == folder
    with pytest.raises(UserError, match="Did you mean 'factorial'"):
        load("factorail")
    with pytest.raises(UserError, match="level must lie between"):
        load(folder, level=95)
    with pytest.raises(UserError, match="at least one study"):
        load([])
    part = record.part_path(record.group_folders(folder)[0], 0)
    good = part.read_bytes()
    part.write_bytes(good[: len(good) // 2])
    with pytest.raises(UserError, match=r"cannot read .*part-00000\.parquet"):
        load(folder)
    write_part(part, pd.DataFrame({"run_id": ["a"], "step": [1]}))
    with pytest.raises(UserError, match=r"part-00000\.parquet lacks the columns task, name"):
        load(folder)
    shutil.rmtree(part.parent)
    with pytest.raises(UserError, match="no metrics recorded yet"):
        load(folder)
    (part.parent.parent / "runs.jsonl").write_text("")
    with pytest.raises(UserError, match="no runs recorded"):
        load(folder)
