"""Checkpoints, metric files and study folders: what is written, and what happens where it cannot be."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
from pathlib import Path

import duckdb
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from tiny_study import FINE, after, files, laid_out, options, request, rows, same_rows, statuses, tiny

from plasticity import checkpoint
from plasticity import rows as parquet
from plasticity.errors import UserError
from plasticity.folder import Stopped, open_study
from plasticity.record import COLUMNS, read_runs
from sweeps import compute, store
from sweeps import rows as rows_module
from sweeps.command import execute
from tasks.train import Chunk, Record

IDS = ["run-a", "run-b", "run-c", "run-d"]


def state(shape=(2, 3)):
    return {
        "key": jax.random.key(7),
        "keys": jax.random.split(jax.random.key(1, impl="rbg"), 3),
        "weights": jnp.arange(6.0).reshape(shape) * jnp.float32(np.pi),
        "half": jnp.array([1.5, jnp.nan, -jnp.inf], jnp.float16),
        "count": jnp.int32(3),
        "flags": jnp.array([True, False]),
        "none": jnp.zeros((0, 4)),
    }


def data(leaf):
    return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)


# Checkpoints ------------------------------------------------------------------------------------------------------


def test_checkpoint_round_trip(tmp_path):
    kept = state()
    host = {"task": 3, "diverged": {"x": 2}, "text": "ä\n"}
    checkpoint.save(tmp_path, 12, kept, host)
    loaded, told = checkpoint.load(tmp_path / "00012.npz", jax.tree.map(jnp.zeros_like, kept))
    assert told == host
    assert jax.tree.structure(loaded) == jax.tree.structure(kept)
    for name, leaf in kept.items():
        assert (loaded[name].dtype, loaded[name].shape) == (leaf.dtype, leaf.shape), name
        np.testing.assert_array_equal(data(loaded[name]), data(leaf), err_msg=name)
    # A key goes on drawing what it would have drawn.
    assert jax.random.uniform(loaded["key"]) == jax.random.uniform(kept["key"])


def test_only_the_newest_checkpoint_is_kept(tmp_path):
    assert checkpoint.latest(tmp_path) is None
    for number in (1, 2, 100):
        checkpoint.save(tmp_path, number, state(), {})
        newest = checkpoint.latest(tmp_path)
        assert list(tmp_path.iterdir()) == [newest]
        assert newest.name == f"{number:05d}.npz"


def test_nothing_is_pickled(tmp_path, finished, monkeypatch):
    folder = tmp_path / "study"
    [(path, group)] = laid_out(folder, tiny())
    with pytest.raises(Stopped):
        compute.compute(path, group, options(stop=after(3)))
    newest = checkpoint.latest(path / "checkpoints")
    with np.load(newest, allow_pickle=False) as file:
        assert {file[name].dtype.kind for name in file.files} <= set("fiubU")
    suffixes = {Path(name).suffix or name.rpartition("/")[2] for name in files(folder) | files(finished)}
    assert suffixes == {".json", ".jsonl", ".npz", ".parquet", ".lock"}


@pytest.mark.parametrize(
    "change",
    [
        lambda s: {**s, "weights": jnp.zeros((3, 2))},
        lambda s: {**s, "count": jnp.float32(3)},
        lambda s: {**s, "more": jnp.zeros(1)},
        lambda s: {k: v for k, v in s.items() if k != "count"},
    ],
)
def test_a_checkpoint_of_another_program_is_refused(tmp_path, change):
    checkpoint.save(tmp_path, 1, state(), {})
    with pytest.raises(UserError, match=r"00001\.npz is of another program; delete it to start its group again"):
        checkpoint.load(tmp_path / "00001.npz", change(state()))


@pytest.mark.parametrize("size", [0, 1, 50, 1000, -1])
def test_a_truncated_checkpoint_is_refused(tmp_path, size):
    checkpoint.save(tmp_path, 1, state(), {})
    path = tmp_path / "00001.npz"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"cannot read checkpoint .*00001\.npz: .*; delete it"):
        checkpoint.load(path, state())


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04]\x94.", b"PK\x03\x04" + b"x" * 100])
def test_a_checkpoint_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "00001.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot read checkpoint"):
        checkpoint.load(path, state())


# Rows -------------------------------------------------------------------------------------------------------------


def record():
    """Two seeds x two methods; two measuring points; the second method of the second seed has diverged."""
    dense = {"dead_units/hidden_0": np.arange(8.0).reshape(2, 2, 2) / 10}
    nan = np.array([[0.5, 0.25], [0.75, np.nan]])
    final = {
        "online_loss": np.array([[0.5, 0.25], [0.75, np.inf]]),
        "online_score": np.full((2, 2), 0.1),
        "end_loss": nan,
        "end_score": np.full((2, 2), 0.2),
        "srank/hidden_0": np.full((2, 2), np.nan),  # not due in this task
        "weight_norm": nan,
    }
    return Record(dense, final), Chunk(np.array([0, 2]), np.array([1, 4]))


def test_rows_are_tidy(tmp_path):
    rec, chunk = record()
    path = tmp_path / "metrics" / "part-00000.parquet"
    parquet.write_part(path, [rows_module.frame(IDS, rec, chunk, 3, 15)])
    found = duckdb.sql(f"SELECT * FROM '{path}'").df()
    assert tuple(found.columns) == COLUMNS
    types = {name: kind for name, kind, *_ in duckdb.sql(f"DESCRIBE SELECT * FROM '{path}'").fetchall()}
    text = dict.fromkeys(("run_id", "name", "layer", "unit"), "VARCHAR")
    assert types == {**text, "step": "BIGINT", "task": "BIGINT", "value": "DOUBLE"}
    assert set(found["task"]) == {3}
    dense = found[found["name"] == "dead_units"]
    # 3 tasks of 5 updates lie behind; measured after updates 2 and 5 of the fourth.
    assert list(dense["step"]) == [17, 20] * 4
    assert list(dense["run_id"]) == [i for i in IDS for _ in range(2)]
    np.testing.assert_allclose(dense["value"], np.arange(8) / 10)
    assert set(dense["layer"]) == {"hidden_0"}
    final = found[found["name"] != "dead_units"]
    assert set(final["step"]) == {20}
    assert set(final["layer"]) == {""}
    units = dict(zip(found["name"], found["unit"], strict=True))
    losses = dict.fromkeys(("online_loss", "end_loss"), "nats or squared error")
    assert units == {**losses, "online_score": "share", "end_score": "share"} | {
        name: rows_module.unit_of(name) for name in ("dead_units", "weight_norm")
    }


def test_nan_is_dropped_where_it_means_not_due_and_kept_where_it_happened():
    rec, chunk = record()
    found = rows_module.frame(IDS, rec, chunk, 0, 5)
    table = found[found["run_id"] == "run-d"].set_index("name")["value"]
    assert "srank" not in set(found["name"])
    assert "weight_norm" not in table
    assert (found["name"] == "weight_norm").sum() == 3
    assert table["online_loss"] == np.inf
    assert np.isnan(table["end_loss"])
    # Without a finite loss there is no score; beside it there is.
    assert np.isnan(table["online_score"])
    assert np.isnan(table["end_score"])
    assert (found[found["run_id"] != "run-d"]["value"].notna()).all()


def test_parts_and_the_joined_file_have_the_same_rows(tmp_path):
    rec, chunk = record()
    folder = tmp_path / "it's quoted"
    for i in range(3):
        parquet.write_part(folder / f"part-{i:05d}.parquet", [rows_module.frame(IDS, rec, chunk, i, 5)])

    def read(pattern):
        listed = str(folder / pattern).replace("'", "''")
        return duckdb.sql(f"SELECT * FROM read_parquet('{listed}')").df()

    before = read("part-*.parquet")
    parquet.compact(folder)
    assert files(folder) == {"all.parquet"}
    pd.testing.assert_frame_equal(read("all.parquet"), before)


# Study folders ----------------------------------------------------------------------------------------------------


def test_a_folder_of_another_study_is_refused(tmp_path, finished):
    copy = tmp_path / "study"
    open_study(copy, json.loads((finished / "study.json").read_text()), "sweeps")
    before = files(copy), (copy / "study.json").read_bytes()
    for change, word in (({"name": "other"}, "'other'"), ({"scale": "paper"}, "'paper'")):
        description = {**request(tiny(), copy).description, **change}
        with pytest.raises(UserError, match=rf"{copy} holds study 'tiny' at scale 'own', not .*{word}.*another --out"):
            open_study(copy, description, "sweeps")
    assert (files(copy), (copy / "study.json").read_bytes()) == before


@pytest.mark.parametrize("content", ["[]", "{}", '{"name": "tiny", "scale": "own", "schema": 1}', "{", "3"])
def test_a_study_json_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(UserError, match=r"study\.json"):
        execute(request(tiny(), tmp_path))
    assert files(tmp_path) == {"study.json"}


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(UserError, match="is not empty and holds no study; choose another --out"):
        execute(request(tiny(), tmp_path))
    assert files(tmp_path) == {"thesis.tex"}


@pytest.mark.parametrize("below", ["", "runs/study"])
def test_a_file_in_the_way_is_refused(tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"is a file, not a folder|cannot write .*study\.json: Not a directory"):
        execute(request(tiny(), tmp_path / "file" / below))
    assert files(tmp_path) == {"file"}


def test_a_study_remembers_when_it_was_begun_and_all_its_runs(tmp_path):
    folder = tmp_path / "study"
    open_study(folder, request(tiny(seeds=3), folder).description, "sweeps")
    before = json.loads((folder / "study.json").read_text())
    open_study(folder, request(tiny(seeds=1), folder).description, "sweeps")
    after = json.loads((folder / "study.json").read_text())
    assert (before["runs"], after["runs"]) == (6, 6)
    assert before["created"] == after["created"]


def test_a_group_folder_cut_off_while_it_was_laid_out_is_completed(tmp_path):
    [(path, group)] = laid_out(tmp_path / "study", tiny())
    (path / "runs.jsonl").unlink()
    assert store.save_group(tmp_path / "study", group) == path
    assert len(read_runs(path)) == 4
    loaded = store.load_group(path)
    assert loaded == group
    assert loaded.id == group.id == path.name


# A disk that cannot be written -------------------------------------------------------------------------------------


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def denied(*_, **__):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


class FullDuck:
    """A duckdb connection whose disk is full, with the message that duckdb gives."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def register(self, *_):
        return None

    def execute(self, statement):
        aside = statement.split("TO '")[1].split("'")[0]
        Path(aside).write_bytes(b"half")
        raise duckdb.IOException("IO Error: Could not write file: No space left on device")


FAULTS = {
    "rename": (os, "replace", full, "No space left on device"),
    "flush": (os, "fsync", full, "No space left on device"),
    "no permission": (os, "fsync", denied, "Permission denied"),
    "duckdb": (duckdb, "connect", FullDuck, "No space left on device"),
    "checkpoint": (np, "savez", full, "No space left on device"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_disk_that_fills_up_stops_the_sweep_and_loses_nothing(tmp_path, finished, monkeypatch, fault):
    """One clear error that names a path; nothing half-written; and with room again the same command goes on."""
    folder = tmp_path / "study"
    where, name, broken, said = FAULTS[fault]
    advance, calls = compute.program.advance, []

    def advance_until_full(*arguments):
        calls.append(1)
        if len(calls) == 4:  # after the saves of three chunks
            monkeypatch.setattr(where, name, broken)
        return advance(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(compute.program, "advance", advance_until_full)
        with pytest.raises(UserError, match=rf"cannot write {folder}/groups/.*: .*{said}"):
            execute(request(tiny(), folder, **FINE))
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert not [path for path in files(folder) if path.endswith(".tmp")]
    assert {status for status, _ in statuses(folder).values()} == {"running"}
    assert execute(request(tiny(), folder, **FINE)) == 0
    same_rows(folder, finished)


def test_a_real_limit_on_file_size(tmp_path, finished):
    """No mock: the system refuses to let any file grow beyond 1 kB, as a quota does."""
    if resource.getrlimit(resource.RLIMIT_FSIZE)[1] != resource.RLIM_INFINITY:
        pytest.skip("a limit is set already")
    folder = tmp_path / "study"
    [(path, group)] = laid_out(folder, tiny())

    @contextlib.contextmanager
    def limited(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    with limited(4096), pytest.raises(UserError, match=r"cannot write .*(File too large|checkpoints|metrics)"):
        compute.compute(path, group, options())
    assert not [name for name in files(folder) if name.endswith(".tmp")]
    assert compute.compute(path, group, options())
    same_rows(folder, finished)


def test_a_disk_that_is_full_when_the_rows_are_joined(tmp_path, finished, monkeypatch):
    """The runs are finished by then: their parts stay, and nothing is computed again."""
    folder = tmp_path / "study"
    original = parquet._copy

    def copy(connection, source, path):
        if "all.parquet" in path.name:
            full()
        original(connection, source, path)

    monkeypatch.setattr(parquet, "_copy", copy)
    with pytest.raises(UserError, match=r"cannot write .*all\.parquet: No space left on device"):
        execute(request(tiny(), folder, **FINE))
    assert statuses(folder) == statuses(finished)
    same_rows(folder, finished)
    monkeypatch.undo()
    assert store.plan(folder, tiny().runs(), 16).groups == []


def test_a_finished_group_is_tidy(finished):
    [path] = finished.glob("groups/*")
    assert files(path) == {".lock", "group.json", "runs.jsonl", "provenance.json", "metrics/all.parquet"}
    assert len(rows(finished)) == 4 * 3 * 4  # runs, tasks, scores and losses
