"""The books of a group: begun, saved, resumed, finished; failures are marked; rows are tidy."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from plasticity import checkpoint, folder
from plasticity.errors import UserError
from plasticity.folder import GroupFolder, Stopped, compute, locked, open_study
from plasticity.record import COLUMNS, RunLine, atomic, read_json, read_runs, write_runs
from plasticity.rows import tidy

pd = pytest.importorskip("pandas")
duckdb = pytest.importorskip("duckdb")

LINES = [RunLine(f"run-{c}", c, seed, "planned", None, {"seed": seed}) for seed, c in enumerate("ab")]
STATE = {"w": jnp.arange(3.0), "count": jnp.int32(0)}


def frame(step, value=1.0):
    """One row a run."""
    return tidy(["run-a", "run-b"], 0, [(np.array([step]), {"loss": np.full((2, 1), value)})], lambda name: "nats")


def after(count):
    return {"w": jnp.arange(3.0) + count, "count": jnp.int32(count)}


def steps(path):
    """The steps of all rows on disk, read as a stranger would."""
    joined = path / "metrics" / "all.parquet"
    found = [joined] if joined.exists() else sorted((path / "metrics").glob("part-*.parquet"))
    if not found:
        return []
    listed = ", ".join(f"'{part}'" for part in found)
    return sorted({step for (step,) in duckdb.sql(f"SELECT step FROM read_parquet([{listed}])").fetchall()})


def names(path, pattern):
    return sorted(p.name for p in path.glob(pattern))


def statuses(path):
    return [(line.status, line.error) for line in read_runs(path)]


@pytest.fixture
def path(tmp_path):
    """A group's folder, laid out and not begun."""
    write_runs(tmp_path / "group", LINES)
    return tmp_path / "group"


# The life of a group ------------------------------------------------------------------------------------------------


def test_from_beginning_to_end(path):
    books = GroupFolder(path, LINES)
    assert books.run_ids == ["run-a", "run-b"]
    books.begin(program="test")
    assert statuses(path) == [("running", None)] * 2
    assert read_json(path / "provenance.json").items() >= {"group_size": 2, "program": "test"}.items()
    assert books.resume(STATE) is None

    for i in range(3):
        books.add(frame(10 * i))
        books.add(frame(10 * i + 5))
        assert steps(path) == list(range(0, 10 * i, 5))  # rows wait for the save
        books.save(after(i), {"at": i})
        assert names(path, "checkpoints/*") == [f"{i + 1:05d}.npz"]
    assert names(path, "metrics/*") == [f"part-{i:05d}.parquet" for i in range(3)]

    books.add(frame(30))
    books.finish([("done", None), ("diverged", "loss is not finite")])
    assert statuses(path) == [("done", None), ("diverged", "loss is not finite")]
    assert [line._replace(status="planned", error=None) for line in read_runs(path)] == LINES
    assert names(path, "metrics/*") == ["all.parquet"]
    assert names(path, "checkpoints/*") == []
    assert steps(path) == [0, 5, 10, 15, 20, 25, 30]
    facts = read_json(path / "provenance.json")
    assert facts.items() >= {"group_size": 2, "program": "test"}.items()
    assert facts["wall_seconds"] >= 0
    assert 0 < facts["peak_memory_before_mib"] <= facts["peak_memory_mib"]
    assert not list(path.rglob("*.tmp"))


def test_resumed_from_the_newest_save_and_nothing_twice(path):
    """Rows written after the checkpoint are computed again, so they are dropped; those before it stay."""
    books = GroupFolder(path, LINES)
    for i in range(2):
        books.add(frame(i))
        books.save(after(i), {"at": i})
    books.add(frame(2))
    books.write_part()
    books.add(frame(3))
    books.write_part()
    assert steps(path) == [0, 1, 2, 3]

    again = GroupFolder(path, LINES)
    state, host = again.resume(STATE)
    assert host == {"at": 1}
    np.testing.assert_array_equal(state["w"], after(1)["w"])
    assert steps(path) == [0, 1]
    for i in (2, 3):
        again.add(frame(i))
        again.save(after(i), {"at": i})
    again.finish([("done", None)] * 2)
    assert steps(path) == [0, 1, 2, 3]
    assert duckdb.sql(f"SELECT count(*) FROM '{path}/metrics/all.parquet'").fetchall() == [(8,)]


def test_resumed_without_a_save_everything_begins_again(path):
    books = GroupFolder(path, LINES)
    books.add(frame(0))
    books.write_part()
    (path / "metrics" / "all.parquet").write_bytes(b"of an earlier life")
    assert GroupFolder(path, LINES).resume(STATE) is None
    assert names(path, "metrics/*") == []


def test_a_save_without_rows_is_a_save(path):
    """Saves and parts are counted together, so that a later part is never taken for an earlier one."""
    books = GroupFolder(path, LINES)
    books.save(after(0), {})
    books.add(frame(1))
    books.save(after(1), {})
    assert names(path, "metrics/*") == ["part-00001.parquet"]
    again = GroupFolder(path, LINES)
    assert again.resume(STATE) is not None
    assert steps(path) == [1]


def test_a_group_that_measured_nothing_is_finished_all_the_same(path):
    books = GroupFolder(path, LINES)
    books.begin()
    books.finish([("diverged", None)] * 2)
    assert statuses(path) == [("diverged", None)] * 2
    assert names(path, "metrics/*") == []


def test_a_save_is_due_by_time(path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(folder.time, "monotonic", lambda: now[0])
    books = GroupFolder(path, LINES)
    now[0] = 119.0
    assert not books.due(20)
    now[0] = 120.0
    assert books.due(20)
    books.save(after(0), {})
    assert not books.due(20)


def test_each_lane_has_a_status(path):
    with pytest.raises(ValueError, match="argument"):
        GroupFolder(path, LINES).write_statuses([("done", None)])


# Computing ----------------------------------------------------------------------------------------------------------


def finish(books):
    books.finish([("done", None)] * 2)


def test_a_body_that_ends_well(path):
    assert compute(path, LINES, finish)
    assert statuses(path) == [("done", None)] * 2
    assert compute(path, LINES, lambda books: pytest.fail("computed again"))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (UserError("no such data\nlook there"), "no such data"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"),
        (RuntimeError(), "RuntimeError: "),
        (ValueError("x" * 1000), "ValueError: " + "x" * 488),
    ],
)
def test_a_body_that_fails_marks_its_runs(path, error, told):
    def body(books):
        books.begin()
        raise error

    assert not compute(path, LINES, body)
    assert statuses(path) == [("failed", told)] * 2
    assert type(error).__name__ in (path / "error.txt").read_text()
    # ... and is tried again.
    assert compute(path, LINES, finish)


def test_a_body_fails_on_after_some_of_its_work(path):
    """What it saved stays, and the next attempt goes on from there."""

    def body(books):
        books.add(frame(0))
        books.save(after(0), {"at": 0})
        raise RuntimeError("later")

    assert not compute(path, LINES, body)
    assert checkpoint.latest(path / "checkpoints") is not None
    assert GroupFolder(path, LINES).resume(STATE)[1] == {"at": 0}


@pytest.mark.parametrize("error", [Stopped(), KeyboardInterrupt()])
def test_being_stopped_is_no_failure(path, error):
    def body(books):
        books.begin()
        raise error

    with pytest.raises(type(error)):
        compute(path, LINES, body)
    assert statuses(path) == [("running", None)] * 2
    assert not (path / "error.txt").exists()


def test_a_disk_that_cannot_be_written_is_everybodys_business(path):
    def body(books):
        with atomic(path / "x"):
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"cannot write .*No space left"):
        compute(path, LINES, body)


def test_a_group_that_another_process_holds_is_left_to_it(path):
    pytest.importorskip("fcntl")
    with locked(path) as mine:
        assert mine
        assert compute(path, LINES, lambda books: pytest.fail("computed twice"))
    assert statuses(path) == [("planned", None)] * 2
    with locked(path) as mine:  # free again
        assert mine


def test_looking_at_a_study_writes_nothing(tmp_path):
    description = {"name": "n", "scale": "s", "schema": 1, "runs": 2}
    open_study(tmp_path / "new", description, "sweeps", write=False)
    assert not (tmp_path / "new").exists()
    open_study(tmp_path / "new", description, "sweeps")
    written = json.loads((tmp_path / "new" / "study.json").read_text())
    assert written.items() >= description.items()
    assert written["argv"][:3] == ["python", "-m", "sweeps"]


# Rows ---------------------------------------------------------------------------------------------------------------


def test_rows_by_hand():
    readings = [
        (np.array([10, 20]), {"srank/conv_0": np.array([[1.0, 2.0], [3.0, np.nan]]), "loss": [[0.5, np.nan]] * 2}),
        (np.array([20]), {"srank/hidden": np.array([5.0, 6.0])}),
    ]
    found = tidy(["b", "a"], 7, readings, {"srank": "directions", "loss": "nats"}.get, keep=("loss",))
    assert tuple(found.columns) == COLUMNS
    rows = [tuple(row) for row in found.replace({np.nan: None}).itertuples(index=False)]
    assert rows == [
        ("b", 10, 7, "srank", "conv_0", 1.0, "directions"),
        ("b", 20, 7, "srank", "conv_0", 2.0, "directions"),
        ("a", 10, 7, "srank", "conv_0", 3.0, "directions"),  # step 20 was not due
        ("b", 10, 7, "loss", "", 0.5, "nats"),
        ("b", 20, 7, "loss", "", None, "nats"),  # a loss that is not a number happened
        ("a", 10, 7, "loss", "", 0.5, "nats"),
        ("a", 20, 7, "loss", "", None, "nats"),
        ("b", 20, 7, "srank", "hidden", 5.0, "directions"),
        ("a", 20, 7, "srank", "hidden", 6.0, "directions"),
    ]


def test_no_readings_are_no_rows(tmp_path):
    for readings in ([], [(np.array([1]), {"srank": np.full((2, 1), np.nan)})]):
        found = tidy(["a", "b"], 0, readings, lambda name: "x")
        assert tuple(found.columns) == COLUMNS
        assert len(found) == 0
    # ... and beside other rows they change no type.
    books = GroupFolder(tmp_path, LINES)
    books.add(tidy(["a", "b"], 0, [], lambda name: "x"))
    books.add(frame(3, value=0.25))
    books.write_part()
    kinds = duckdb.sql(f"DESCRIBE SELECT * FROM '{tmp_path}/metrics/part-00000.parquet'").fetchall()
    assert {name: kind for name, kind, *_ in kinds if name in ("step", "task", "value")} == {
        "step": "BIGINT",
        "task": "BIGINT",
        "value": "DOUBLE",
    }
