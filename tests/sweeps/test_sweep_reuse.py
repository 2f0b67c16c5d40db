"""Finished runs of another study are taken over, row for row, and not computed again."""

import pytest
from tiny_study import after, files, laid_out, options, request, rows, statuses, task, tiny

from analysis.load import load
from plasticity.errors import UserError
from plasticity.folder import Stopped
from plasticity.record import read_json
from sweeps import reuse, store
from sweeps.__main__ import main
from sweeps.command import execute
from sweeps.compute import compute


@pytest.fixture
def first(tmp_path):
    """A study that has finished `none` and `l2`, two seeds each."""
    folder = tmp_path / "first"
    assert execute(request(tiny(), folder)) == 0
    return folder


def test_only_what_is_new_is_computed(first, tmp_path, capsys):
    grid, out = tiny(("none", "l2(1e-3)", "l2(1e-2)")), tmp_path / "second"
    capsys.readouterr()
    assert execute(request(grid, out, "second", reuse=(first,))) == 0
    shown = capsys.readouterr().out
    assert "4 finished runs taken over" in shown
    assert "2 runs to compute, 4 finished before" in shown
    assert list(statuses(out).values()) == [("done", None)] * 6
    ids = set(statuses(first))
    taken = rows(out)
    taken = taken[taken["run_id"].isin(ids)].reset_index(drop=True)
    assert taken.equals(rows(first))
    origin = [read_json(path) for path in (out / "groups").glob("adopted-*/provenance.json")]
    assert [o["adopted_from"].partition("/groups/")[0] for o in origin] == ["first"]
    assert all(o["git_commit"] for o in origin)
    _, frame = load(out)
    assert frame["run_id"].nunique() == 6
    # The same command again has nothing to do, and to take over.
    before = files(out)
    assert execute(request(grid, out, "second", reuse=(first,))) == 0
    assert "0 finished runs taken over" in capsys.readouterr().out
    assert files(out) == before


def test_unfinished_runs_are_left_where_they_are(tmp_path):
    first = tmp_path / "first"
    ((path, group),) = laid_out(first, tiny())
    with pytest.raises(Stopped):
        compute(path, group, options(stop=after(2)))
    assert reuse.adopt(tmp_path / "second", (first,), tiny().runs()) == 0
    assert not (tmp_path / "second").exists()


def test_a_folder_that_is_no_study_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere is no study folder"):
        reuse.adopt(tmp_path / "out", (tmp_path / "nowhere",), tiny().runs())


def test_a_dry_run_takes_nothing(first, tmp_path):
    assert execute(request(tiny(), tmp_path / "second", "second", reuse=(first,)), dry_run=True) == 0
    assert not (tmp_path / "second").exists()


def test_a_grid_has_the_fresh_network_beside_it(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["grid", "--name", "mine", "--task", task(), "--network", "mlp(8, 1)", "--seeds", "1"]
    assert main([*arguments, "--mitigations", "none"]) == 0
    labels = {line.label for line in store.lines(tmp_path / "runs" / "mine").values()}
    assert {label.rpartition("/")[2] for label in labels} == {"none", "full_reset"}
    assert read_json(tmp_path / "runs" / "mine" / "study.json")["reference"] == "full_reset"
    assert main([*arguments[:2], "bare", *arguments[3:], "--no-fresh"]) == 0
    assert read_json(tmp_path / "runs" / "bare" / "study.json")["reference"] is None
