"""Records on disk: whole or not at all, read back equal, and a `UserError` that names the path otherwise."""

import errno
import json
import os

import pytest

from plasticity import record
from plasticity.errors import UserError
from plasticity.record import RunLine, atomic, read_json, read_runs, write_json, write_runs

LINES = [
    RunLine("a1", "layer_norm", 0, "done", None, {"task": "label_reset", "lr": 1e-3}),
    RunLine("b2", "l2(1e-5) ± é", 1, "failed", "out of\nmemory", {"task": "label_reset", "lr": 0.1}),
]


def test_json_reads_back_in_the_order_given(tmp_path):
    value = {"z": 1, "a": [1.5, None, "é"], "m": {"y": True, "b": 1e-300}}
    write_json(tmp_path / "deep" / "er" / "x.json", value)
    again = read_json(tmp_path / "deep" / "er" / "x.json")
    assert again == value
    assert list(again) == ["z", "a", "m"]


def test_runs_read_back(tmp_path):
    assert read_runs(tmp_path) == []
    write_runs(tmp_path, LINES)
    assert read_runs(tmp_path) == LINES
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 2


def listing(folder) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})
    with pytest.raises(ZeroDivisionError), atomic(path) as aside:
        aside.write_text(f"half {1 / 0}")
    assert read_json(path) == {"old": 1}
    assert listing(tmp_path) == ["x.json"]


def test_nobody_sees_the_file_before_it_is_whole(tmp_path):
    path = tmp_path / "x.json"
    with atomic(path) as aside:
        aside.write_text("half")
        assert not path.exists()
        assert aside.parent == path.parent  # a rename is atomic within one file system only
    assert path.read_text() == "half"


def test_the_content_is_on_disk_before_the_rename(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(record.os, "fsync", lambda fd: order.append("fsync"))
    replace = os.replace
    monkeypatch.setattr(record.os, "replace", lambda a, b: (order.append("replace"), replace(a, b)))
    write_json(tmp_path / "x.json", 1)
    assert order == ["fsync", "replace"]


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_full_disk_names_the_path(tmp_path, monkeypatch, where):
    path = tmp_path / "x.json"
    write_json(path, {"old": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(record.os, where, full)
    with pytest.raises(UserError, match="No space left on device") as caught:
        write_json(path, {"new": 1})
    assert str(path) in str(caught.value)
    assert read_json(path) == {"old": 1}
    assert listing(tmp_path) == ["x.json"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_names_the_path(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    try:
        with pytest.raises(UserError, match="Permission denied"):
            write_json(folder / "x.json", 1)
    finally:
        folder.chmod(0o700)


def test_a_folder_that_cannot_be_made_names_the_path(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/x\.json"):
        write_json(tmp_path / "file" / "x.json", 1)

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(record.Path, "mkdir", refuse)
    with pytest.raises(UserError, match=r"cannot write .*x\.json: Permission denied"):
        write_json(tmp_path / "no" / "x.json", 1)


def test_what_cannot_be_read_names_the_path(tmp_path):
    with pytest.raises(UserError, match=r"no such file: .*x\.json"):
        read_json(tmp_path / "x.json")
    for content in (b"{", b"\xff\xfe", b""):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(UserError, match=r"cannot read .*x\.json"):
            read_json(tmp_path / "x.json")
    for content in (b"{", b"\xff\xfe", b'{"run_id": 1}', b"[1]"):
        (tmp_path / "runs.jsonl").write_bytes(content)
        with pytest.raises(UserError, match=r"cannot read .*runs\.jsonl"):
            read_runs(tmp_path)
    (tmp_path / "runs.jsonl").unlink()
    (tmp_path / "runs.jsonl").mkdir()
    with pytest.raises(UserError, match=r"cannot read .*runs\.jsonl"):
        read_runs(tmp_path)


def test_places(tmp_path):
    for name in ("b", "a"):
        (tmp_path / "groups" / name).mkdir(parents=True)
    (tmp_path / "groups" / "stray.txt").write_text("")
    assert [p.name for p in record.group_folders(tmp_path)] == ["a", "b"]
    assert record.group_folders(tmp_path / "none") == []
    assert record.part_path(tmp_path, 12).relative_to(tmp_path).as_posix() == "metrics/part-00012.parquet"
    assert set(record.FINISHED) < {"planned", "running", "done", "diverged", "failed"}
    assert json.loads(json.dumps(record.COLUMNS)) == ["run_id", "step", "task", "name", "layer", "value", "unit"]
