"""Sweeps over games: the same grouping, padding, resuming and reporting as over tasks."""

import json

import numpy as np
import pytest

from analysis.load import load
from plasticity.errors import UserError
from plasticity.folder import Options
from plasticity.record import group_folders, read_runs
from rl.__main__ import main as play
from sweeps import kinds, store
from sweeps.__main__ import main
from sweeps.agent_grid import AgentGrid
from sweeps.grid import Grid, subsets
from sweeps.grouping import groups_of, programs
from sweeps.studies.agents import STUDY

AGENT = "small_dqn(min_replay_steps=40, replay_steps=200, batch_size=8)"
SETTINGS = {"envs": 2, "frames": 200, "iteration_frames": 50, "measure_updates": 20, "ranks": False}
COMMON = {"agent": (AGENT,), "network": ("mlp(8, 1)",), "settings": SETTINGS}


def grid(**changes):
    return AgentGrid(("probe_discount",), mitigations=subsets("layer_norm", "l2(1e-3)"), seeds=2, **COMMON, **changes)


def test_strengths_and_seeds_of_a_game_share_a_program():
    """{layer norm} x {L2} is two programs, L2's absence being its zero strength; another game is another program."""
    groups = groups_of(grid().runs(), lanes=8)
    assert [group.shape for group in groups] == [(2, 2), (2, 2)]
    assert programs(groups) == 2
    two = AgentGrid(("probe_discount", "probe_value"), seeds=1, **COMMON)
    assert programs(groups_of(two.runs(), lanes=8)) == 2


def test_kinds_do_not_mix():
    with pytest.raises(UserError, match="one kind of runs"):
        kinds.only([*grid().runs(), *Grid(["label_reset"]).runs()])


def test_an_empty_axis_is_named():
    with pytest.raises(UserError, match="axis 'game' is empty"):
        AgentGrid(()).runs()


def test_run_ids_are_stable_under_the_way_through_text():
    for run in grid().runs():
        assert kinds.from_config(json.loads(json.dumps(run.config))) == run


def arguments(folder, *more):
    # The command line has no flags for these details: the sizes are the spec's.
    axes = ["--game", "probe_value", "--agent", AGENT, "--network", "mlp(8, 1)", "--frames", "160"]
    rhythm = ["--iteration-frames", "80", "--seeds", "2"]
    return ["grid", "--name", "tiny", *axes, *rhythm, "--subsets", "layer_norm", "--out", str(folder), *more]


def test_a_sweep_over_a_game_from_the_command_line(tmp_path, capsys):
    folder = tmp_path / "tiny"
    assert main(arguments(folder, "--dry-run")) == 0
    assert "4 runs to compute" in capsys.readouterr().out
    assert not folder.exists()
    assert main(arguments(folder)) == 0
    assert "4 of 4 runs finished" in " ".join(capsys.readouterr().out.split())
    study, frame = load(folder)
    assert study.kind == "rl"
    assert set(study.combinations) == {"none", "layer_norm"}
    assert frame.groupby("run_id", observed=True)["task_index"].max().eq(1).all()
    assert main(arguments(folder)) == 0
    assert "0 runs to compute, 4 finished before" in " ".join(capsys.readouterr().out.split())


def test_policies_of_a_padded_sweep_are_evaluated(tmp_path, capsys):
    """Runs with and without L2 lie in one group; their saved networks are read with the methods made alike."""
    folder = tmp_path / "tiny"
    assert main([a if a != "layer_norm" else "l2(1e-3)" for a in arguments(folder)]) == 0
    assert len(group_folders(folder)) == 1
    assert play(["evaluate", str(folder), "--episodes", "2"]) == 0
    capsys.readouterr()
    told = json.loads((folder / "evaluation-best.json").read_text())
    assert [len(run["returns"]) for run in told["runs"]] == [2] * 4


@pytest.mark.parametrize("kind", ["tasks", "games"])
def test_further_diagnostics_are_recorded_through_configuration_alone(kind, tmp_path, capsys):
    task = "label_reset(steps=4, num_tasks=2, examples_used=40, batch_size=20, pool=2)"
    game = ["--game", "probe_value", "--agent", AGENT, "--frames", "160", "--iteration-frames", "80"]
    axes = ["--task", task] if kind == "tasks" else game
    common = ["grid", "--name", "x", *axes, "--network", "mlp(8, 1)", "--seeds", "1", "--out", str(tmp_path / "x")]
    assert main([*common, "--also", "weight_magnitud"]) == 2
    assert "Did you mean 'weight_magnitude'" in capsys.readouterr().err
    assert main([*common, "--also", "weight_magnitude affine_fit_units"]) == 0
    _, frame = load(tmp_path / "x")
    assert {"weight_magnitude", "affine_fit_units", "dead_units"} <= set(frame["name"])


def test_either_tasks_or_games(capsys):
    assert main(["grid", "--name", "x"]) == 2
    assert main(["grid", "--name", "x", "--task", "label_reset", "--game", "pong"]) == 2
    assert "either --task or --game" in capsys.readouterr().err


def test_a_group_gives_each_lane_what_it_gets_alone(tmp_path):
    """Strengths and seeds side by side: every recorded number of a lane, up to float reassociation."""
    runs = [run for run in grid().runs() if "layer_norm" not in run.label]
    assert len(runs) == 4
    together, alone = tmp_path / "together", tmp_path / "alone"
    for folder, lanes in ((together, 8), (alone, 1)):
        for group in groups_of(runs, lanes):
            path = store.save_group(folder, group)
            assert kinds.computed(path, Options())
    one, other = (values(folder) for folder in (together, alone))
    assert one.keys() == other.keys()
    assert len(one) > 100
    for key, value in one.items():
        np.testing.assert_allclose(value, other[key], rtol=2e-3, atol=1e-5, err_msg=str(key))


def values(folder):
    import duckdb

    files = [str(p / "metrics" / "all.parquet") for p in group_folders(folder)]
    rows = duckdb.read_parquet(files).fetchall()
    assert {line.status for p in group_folders(folder) for line in read_runs(p)} == {"done"}
    return {row[:5]: row[5] for row in rows}


@pytest.mark.parametrize("scale", STUDY.scales)
def test_the_study_of_agents(scale):
    """Claims speak of combinations that the grid runs, with windows that its iterations have."""
    size = STUDY.scale(scale)
    runs = size.grid.runs()
    description = STUDY.to_json(scale, runs)
    assert description["kind"] == "rl"
    ran = {(run.key, run.label) for run in runs}
    iterations = {run.key: run.schedule.iterations for run in runs}
    for claim in size.claims:
        for part in getattr(claim.test, "parts", (claim.test,)):
            assert sum(weight for weight, _ in part.terms) == pytest.approx(0)
            for _, outcome in part.terms:
                assert (outcome.task, outcome.mitigations) in ran
                assert outcome.last <= iterations[outcome.task]
