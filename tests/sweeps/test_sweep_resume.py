"""Interrupted anywhere and resumed equals uninterrupted: rows exactly, statuses too; finished runs stay untouched."""

from __future__ import annotations

import dataclasses
import os

import pytest
from tiny_study import FINE, after, files, laid_out, options, request, rows, same_rows, statuses, tiny

from plasticity import checkpoint
from plasticity.errors import UserError
from plasticity.folder import Stopped, locked
from plasticity.record import group_folders, part_path, read_runs
from sweeps import compute, store
from sweeps.command import execute
from sweeps.executors.inline import inline

SAVES = 5  # 3 tasks of 2 chunks, a save after each but the last


class Killed(BaseException):
    """Stands for kill -9: nothing in the program may catch it."""


@pytest.mark.parametrize("count", range(1, SAVES + 1))
def test_stopped_at_any_save_and_resumed(tmp_path, finished, count):
    folder = tmp_path / "study"
    [(path, group)] = laid_out(folder, tiny())
    with pytest.raises(Stopped):
        compute.compute(path, group, options(stop=after(count)))
    assert {line.status for line in read_runs(path)} == {"running"}
    assert [p.name for p in (path / "checkpoints").iterdir()] == [f"{count:05d}.npz"]
    told = []
    assert compute.compute(path, store.load_group(path), options(progress=told.append))
    same_rows(folder, finished)
    assert statuses(folder) == statuses(finished)
    # No chunk that was saved is computed again: 4 runs, 5 updates a task; the first count is what lay behind.
    assert len(told) == 1 + (SAVES + 1 - count)


def test_stopped_again_and_again(tmp_path, finished):
    folder = tmp_path / "study"
    [(path, group)] = laid_out(folder, tiny())
    for _ in range(SAVES):
        with pytest.raises(Stopped):
            compute.compute(path, group, options(stop=lambda: True))
    assert compute.compute(path, group, options(stop=lambda: True))  # nothing is left to stop before
    same_rows(folder, finished)


def test_killed_at_any_write_and_run_again(tmp_path, finished, monkeypatch):
    """Every file is renamed to its place: dying right before and right after each renaming is every state on disk."""
    replace, kill_at, killed_in = os.replace, 0, set()

    def dying(source, target):
        nonlocal kill_at
        kill_at -= 1
        if kill_at == 0:
            killed_in.add(os.path.basename(os.path.dirname(target)) + "/" + os.path.basename(target))
            raise Killed
        replace(source, target)

    command = request(tiny(), tmp_path / "0", **FINE)
    runs = 0
    while True:
        runs += 1
        folder, kill_at = tmp_path / str(runs), runs
        monkeypatch.setattr(os, "replace", dying)
        try:
            execute(dataclasses.replace(command, out=folder))
            break
        except Killed:
            monkeypatch.setattr(os, "replace", replace)
        assert execute(dataclasses.replace(command, out=folder)) == 0
        same_rows(folder, finished)
        assert statuses(folder) == statuses(finished)
        assert not [name for name in files(folder) if name.endswith(".tmp")]
    # study.json, group.json, runs.jsonl; running, provenance; saves (parts after task 0 and 1 only, since nothing is
    # measured within a task); last part, provenance, done, joined.
    assert runs - 1 == 3 + 2 + (SAVES + 2) + 4
    assert {"metrics/part-00001.parquet", "checkpoints/00005.npz", "metrics/all.parquet"} <= killed_in


def test_a_part_without_its_checkpoint_is_computed_again(tmp_path, finished):
    folder = tmp_path / "study"
    [(path, group)] = laid_out(folder, tiny())
    with pytest.raises(Stopped):
        compute.compute(path, group, options(stop=after(2)))
    # As if killed between the part of the next save and its checkpoint; and what it holds must not be kept.
    part_path(path, 2).write_bytes(part_path(path, 1).read_bytes())
    assert compute.compute(path, group, options())
    same_rows(folder, finished)


def test_another_chunk_length_does_not_shift_the_position(tmp_path, finished):
    """A checkpoint in the middle of a task counts in chunks of its own length."""
    folder = tmp_path / "study"
    [(path, group)] = laid_out(folder, tiny())
    with pytest.raises(Stopped):
        compute.compute(path, group, options(stop=after(3)))
    assert compute.compute(path, group, options(chunk_updates=1000))
    same_rows(folder, finished)


def test_finished_runs_are_never_computed_again(tmp_path, monkeypatch):
    folder = tmp_path / "study"
    computed = []
    original = compute.program.begin

    def begin(group, data):
        computed.extend(run.id for run in group.flat)
        return original(group, data)

    monkeypatch.setattr(compute.program, "begin", begin)
    assert execute(request(tiny(seeds=2), folder, **FINE)) == 0
    before = rows(folder)
    assert len(computed) == len(set(computed)) == 4
    # The same; fewer lanes; a smaller grid: nothing to do. A larger grid, cut differently: only the new runs.
    for grid, lanes in ((tiny(seeds=2), 0), (tiny(seeds=2), 1), (tiny(("none",), 1), 3)):
        assert execute(request(grid, folder, lanes=lanes)) == 0
        assert len(computed) == 4
    assert execute(request(tiny(seeds=4), folder, lanes=5, **FINE)) == 0
    assert len(computed) == len(set(computed)) == 8
    both = rows(folder)
    kept = both[both["run_id"].isin(before["run_id"])].reset_index(drop=True)
    assert kept.equals(before)
    assert {status for status, _ in statuses(folder).values()} == {"done"}


def test_a_begun_group_keeps_its_lanes(tmp_path, finished):
    """Its checkpoint is of those lanes, so other lanes on the command line are for what has not begun."""
    folder = tmp_path / "study"
    grid = tiny()
    [(path, group)] = laid_out(folder, grid)
    with pytest.raises(Stopped):
        compute.compute(path, group, options(stop=after(3)))
    plan = store.plan(folder, grid.runs(), lanes=1)
    assert [g.id for g in plan.groups] == [group.id]
    assert execute(request(grid, folder, lanes=1, **FINE)) == 0
    same_rows(folder, finished)


def test_a_planned_group_is_cut_anew(tmp_path):
    folder = tmp_path / "study"
    laid_out(folder, tiny(), lanes=16)
    plan = store.plan(folder, tiny().runs(), lanes=2)
    assert [group.shape for group in plan.groups] == [(1, 2), (1, 2)]
    assert plan.runs == 4


def test_a_checkpoint_that_cannot_be_read_fails_its_group_only(tmp_path, capsys):
    folder = tmp_path / "study"
    [(path, group)] = laid_out(folder, tiny())
    with pytest.raises(Stopped):
        compute.compute(path, group, options(stop=after(2)))
    newest = checkpoint.latest(path / "checkpoints")
    assert newest is not None
    newest.write_bytes(newest.read_bytes()[:1000])
    assert execute(request(tiny(), folder, **FINE)) == 1
    output = " ".join(capsys.readouterr().out.split())
    assert "4 failed: cannot read checkpoint" in output
    assert "delete it to start its group again" in output


def test_inline_stops_between_groups(tmp_path):
    folders = [path for path, _ in laid_out(tmp_path / "study", tiny(seeds=4), lanes=4)]
    assert len(folders) == 2
    stop = after(SAVES + 2)  # polled once before the group and after each chunk but its last
    with pytest.raises(Stopped):
        inline(folders, options(stop=stop), 1)
    found = [{line.status for line in read_runs(path)} for path in folders]
    assert found == [{"done"}, {"planned"}]


def test_sessions_of_one_study_do_not_compute_a_group_twice(tmp_path, monkeypatch):
    """A second session begins while the first is in its first group, and takes the others."""
    folder = tmp_path / "study"
    folders = [path for path, _ in laid_out(folder, tiny(seeds=6), lanes=4)]
    assert len(folders) == 3
    began = []
    original = compute.program.begin

    def begin(group, data):
        began.append(group.id)
        return original(group, data)

    monkeypatch.setattr(compute.program, "begin", begin)
    second = iter([lambda: inline(folders, options(), 1)])

    def stop():
        # Polled by the first session within its first group, whose lock it holds.
        if began and (other := next(second, None)):
            assert other()
            assert began == [path.name for path in folders]
            assert [len({line.status for line in read_runs(path)}) for path in folders] == [1, 1, 1]
        return False

    assert inline(folders, options(stop=stop), 1)
    assert began == [path.name for path in folders]
    assert {status for status, _ in statuses(folder).values()} == {"done"}
    assert {path.name for path in group_folders(folder)} == set(began)


def test_a_lock_that_cannot_be_made_is_a_clear_error(tmp_path):
    with (
        pytest.raises(UserError, match=r"cannot write .*/nowhere/\.lock: No such file"),
        locked(tmp_path / "nowhere"),
    ):
        pass
