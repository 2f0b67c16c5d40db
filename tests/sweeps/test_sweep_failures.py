"""Runs that diverge, programs that raise, data that vanish: the rest of the sweep goes on, and says what happened."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from tiny_study import FINE, laid_out, options, request, rows, same_rows, statuses, task, tiny

from plasticity.record import read_runs, write_runs
from sweeps import compute, store
from sweeps.__main__ import main
from sweeps.command import execute
from sweeps.executors.inline import inline
from tasks.data.load import EMBEDDED

TWO_GROUPS = tiny(seeds=4)
#: With two learning rates it has the program of the default study.
ONE = ("l2(1e-3)",)


@pytest.fixture
def failing(monkeypatch):
    """A switch: while on, the program of groups whose first seed is 2 raises."""
    state = {"on": True}
    original = compute.program.advance

    def advance(group, *arguments):
        if state["on"] and group.seeds[0] == 2:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of [/memory]\n  a second line\n")
        return original(group, *arguments)

    monkeypatch.setattr(compute.program, "advance", advance)
    return state


def test_a_diverged_run_is_marked_and_harms_no_neighbour(tmp_path):
    """The lanes beside it, in the same program, have bit for bit the rows that they have beside a sane one."""
    learning_rates = {"wild": "adam(1e30)", "sane": "adam(0.01)"}
    for name, rate in learning_rates.items():
        grid = tiny(ONE, 2, optimizer=("adam", rate))
        assert execute(request(grid, tmp_path / name, **FINE)) == 0
        assert len(list((tmp_path / name / "groups").iterdir())) == 1
    wild, sane = rows(tmp_path / "wild"), rows(tmp_path / "sane")
    neighbours = {run.id for run in tiny(ONE, 2).runs()}
    by_id = statuses(tmp_path / "wild")
    assert {by_id[i] for i in neighbours} == {("done", None)}
    assert {value for i, value in by_id.items() if i not in neighbours} == {("diverged", "loss not finite in task 0")}
    one, other = (f[f["run_id"].isin(neighbours)].reset_index(drop=True) for f in (wild, sane))
    assert len(one) > 0
    assert one.equals(other)
    assert np.isfinite(one["value"]).all()
    lost = wild[~wild["run_id"].isin(neighbours)]
    assert lost[lost["name"] == "end_loss"]["value"].isna().all()
    # What a network of NaN predicts is class 0; that is no score.
    assert lost[lost["name"].isin(["end_score", "online_score"])]["value"].isna().all()
    assert len(lost) == len(one)


def test_the_task_of_divergence_survives_a_resume(tmp_path):
    folder = tmp_path / "study"
    grid = tiny(ONE, 2, optimizer=("adam", "adam(1e30)"))
    [(path, group)] = laid_out(folder, grid)
    for _ in range(5):
        with pytest.raises(compute.Stopped):
            compute.compute(path, group, options(stop=lambda: True))
    assert compute.compute(path, group, options())
    assert sorted(set(statuses(folder).values()), key=str) == [
        ("diverged", "loss not finite in task 0"),
        ("done", None),
    ]


def test_divergence_at_the_last_update_is_noticed(tmp_path):
    """The online loss is of before each update: only the loss at the end has seen the last one."""
    only = task(num_tasks=1, steps=1)
    assert execute(request(tiny(("none",), 1, (only,), ("adam(1e38)",)), tmp_path / "study")) == 0
    assert list(statuses(tmp_path / "study").values()) == [("diverged", "loss not finite in task 0")]
    values = rows(tmp_path / "study").set_index("name")["value"]
    assert np.isfinite(values["online_loss"])
    assert np.isfinite(values["online_score"])
    assert not np.isfinite(values["end_loss"])
    assert np.isnan(values["end_score"])


def test_diverged_runs_are_finished_unless_asked_for_again(tmp_path, capsys):
    folder = tmp_path / "study"
    grid = tiny(ONE, 2, optimizer=("adam", "adam(1e30)"))
    assert execute(request(grid, folder, **FINE)) == 0
    assert store.plan(folder, grid.runs(), 16).groups == []
    assert main(["retry", str(folder)]) == 0
    assert "no failed runs" in capsys.readouterr().out


def test_a_retried_group_of_the_same_lanes_is_computed_again(tmp_path, monkeypatch):
    """Its folder says diverged already, and that must not be taken for the work of another session."""
    folder = tmp_path / "study"
    grid = tiny(ONE, 2, optimizer=("adam(1e30)", "adam(2e30)"))
    assert execute(request(grid, folder, **FINE)) == 0
    begun = []
    original = compute.program.begin
    monkeypatch.setattr(compute.program, "begin", lambda *a: (begun.append(1), original(*a))[1])
    assert main(["retry", str(folder), "--states", "diverged"]) == 0
    assert begun == [1]
    assert {status for status, _ in statuses(folder).values()} == {"diverged"}


def test_a_group_that_raises_fails_alone_and_is_retried(tmp_path, failing, capsys):
    folder = tmp_path / "study"
    command = request(TWO_GROUPS, folder, lanes=4, **FINE)
    assert execute(command) == 1
    found = statuses(folder)
    seeds = {run.id: run.seed for run in TWO_GROUPS.runs()}
    expected = "RuntimeError: RESOURCE_EXHAUSTED: out of [/memory]"
    for run_id, value in found.items():
        assert value == (("failed", expected) if seeds[run_id] >= 2 else ("done", None))
    output = capsys.readouterr().out
    assert f"4 failed: {expected}" in output
    assert "Traceback" not in output
    # The whole story is beside the group, for whoever asks.
    [story] = folder.glob("groups/*/error.txt")
    assert "a second line" in story.read_text()
    # Running again does not: it may fail for hours each time. It says so, and what does.
    assert execute(command) == 1
    output = " ".join(capsys.readouterr().out.split())
    assert "0 runs to compute, 4 finished before, 4 failed before (python -m sweeps retry" in output
    assert main(["status", str(folder)]) == 1
    failing["on"] = False
    assert main(["retry", str(folder), "--lanes", "4"]) == 0
    assert {status for status, _ in statuses(folder).values()} == {"done"}
    assert main(["status", str(folder)]) == 0


def test_a_failed_run_among_stale_running_ones_is_reported(tmp_path, failing):
    """Left over from a killed session: a group that says running. The exit code is of what was computed now."""
    folder = tmp_path / "study"
    for path, group in laid_out(folder, TWO_GROUPS, lanes=16):
        write_runs(path, store.lines_of(group, "running"))
    assert execute(request(TWO_GROUPS, folder, lanes=4, **FINE)) == 1


def test_data_that_vanish_after_planning(tmp_path):
    """Deleted, then damaged, between planning and running: one line that names the file; the other task goes on."""
    images = tmp_path / "images-idx3-ubyte"
    labels = tmp_path / "labels-idx1-ubyte"
    original = EMBEDDED["fashion_mnist"]
    content = {
        images: gzip.decompress(original.read_bytes()),
        labels: gzip.decompress(original.with_name("t10k-labels-idx1-ubyte.gz").read_bytes()),
    }

    def restore():
        for path, data in content.items():
            path.write_bytes(data)

    restore()
    folder = tmp_path / "study"
    grid = tiny(tasks={"embedded": task(), "own": task(data=images)})
    groups = laid_out(folder, grid)
    assert len(groups) == 2
    images.unlink()
    assert not inline([path for path, _ in groups], options(), 1)
    assert {line.status for line in read_runs(groups[0][0])} == {"done"}
    [(status, error)] = {(line.status, line.error) for line in read_runs(groups[1][0])}
    assert status == "failed"
    assert str(error).startswith(f"no data set or file '{images}'.")
    images.write_bytes(content[images][:100_000])
    assert main(["retry", str(folder)]) == 2  # planning reads the data: nothing is computed
    restore()
    assert main(["retry", str(folder)]) == 0
    assert {status for status, _ in statuses(folder).values()} == {"done"}
    # The same images from another file: the same numbers.
    both = rows(folder).set_index("run_id")
    for one, other in zip(*(grid.runs()[part] for part in (slice(4), slice(4, 8))), strict=True):
        assert (one.label, one.seed) == (other.label, other.seed)
        assert both.loc[one.id].reset_index(drop=True).equals(both.loc[other.id].reset_index(drop=True))


def test_interrupted_then_failed_goes_on_from_its_checkpoint(tmp_path, finished, monkeypatch):
    folder = tmp_path / "study"
    calls = []
    original = compute.program.advance

    def advance(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("once")
        return original(*arguments)

    monkeypatch.setattr(compute.program, "advance", advance)
    assert execute(request(tiny(), folder, **FINE)) == 1
    assert main(["retry", str(folder)]) == 0
    assert len(calls) == 7  # three chunks, the failed one again, and the two after it
    same_rows(folder, finished)


def test_provenance_says_what_was_computed_where(finished):
    [path] = finished.glob("groups/*/provenance.json")
    told = json.loads(path.read_text())
    assert told["group_size"] == 4
    assert told["shape"] == [2, 2]
    assert told["wall_seconds"] >= 0
    assert {"jax", "numpy"} <= set(told["packages"])
    assert told["peak_memory_mib"] is None or told["peak_memory_mib"] > 10
