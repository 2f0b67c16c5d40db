"""`python -m tasks`: what each command prints or writes, and how it fails."""

import dataclasses
import sys

import numpy as np
import pytest

from tasks.__main__ import main
from tasks.base import tasks
from tasks.preview import switch


def test_list_names_every_member(capsys):
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in tasks.members())


@pytest.mark.parametrize("name", list(tasks.members()))
def test_describe_shows_every_field_and_the_reference(name, capsys):
    assert main(["describe", name]) == 0
    shown = capsys.readouterr().out
    for field in dataclasses.fields(tasks.get(name)):
        assert field.name in shown
        assert field.metadata["unit"] in shown
    assert "reference:" in shown


def test_describe_shows_type_default_unit_range_and_help(capsys):
    main(["describe", "label_reset"])
    lines = {words[0]: words for line in capsys.readouterr().out.splitlines() if (words := line.split())}
    assert lines["eps"][:5] == ["eps", "float", "1", ">=", "0"]
    assert lines["steps"][:6] == ["steps", "int*", "400", "updates", ">=", "1"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["describe", "label_rest"], "error: unknown task 'label_rest'. Did you mean 'label_reset'?"),
        (
            ["preview", "label_reset(epz=1)", "--out", "a.png"],
            "unknown field of label_reset 'epz'. Did you mean 'eps'?",
        ),
        (["preview", "label_reset(eps=2)", "--out", "a.png"], "eps must be >= 0 and <= 1, got 2"),
        (["preview", "none", "--out", "a.png"], "expected exactly one task, got 0"),
        (
            ["preview", "label_reset", "--task", "30", "--out", "a.png"],
            "--task must be at least 1 and below num_tasks (30)",
        ),
        (["preview", "label_reset", "--samples", "0", "--out", "a.png"], "--samples must be at least 1, got 0"),
        (["preview", "label_reset", "--out", "a.jpg"], "--out must end in .png, .pdf or .svg, got 'a.jpg'"),
        (["preview", "label_reset", "--out", "no/such/a.png"], "the folder of --out does not exist: no/such"),
        (["preview", "label_reset(data=nowhere)", "--out", "a.png"], "no data set or file 'nowhere'"),
        (["data", "get"], "data get needs the name of a data set"),
        (["data", "list", "mnist"], "data list takes neither a name nor a folder, got mnist"),
        (["data", "get", "mnits"], "Did you mean 'mnist'?"),
    ],
)
def test_a_mistake_is_a_message_and_exit_code_2(args, message, capsys, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    assert main(args) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert not list(tmp_path.iterdir())


def test_preview_without_matplotlib_names_the_extra(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "tasks.preview", raising=False)
    monkeypatch.delattr("tasks.preview", raising=False)
    assert main(["preview", "label_reset", "--out", str(tmp_path / "a.png")]) == 2
    assert "pip install 'plasticity-suite[analysis]'" in capsys.readouterr().err


@pytest.mark.parametrize("spec", ["label_reset(0.5, examples_used=200)", "offset_regression(examples_used=200)"])
def test_preview_writes_a_picture(spec, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "a.png"
    assert main(["preview", spec, "--out", str(out), "--samples", "3", "--task", "2"]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert f"wrote {out}" in capsys.readouterr().out


def test_switch_shows_the_contexts_on_both_sides(data):
    task = tasks.get("offset_regression")(examples_used=200, pool=4, pretrain=2, carry=0.0, offset=100.0)
    _, _, _, before, after = switch(task, data, index=2, samples=5, seed=0)
    assert before.x.shape == after.x.shape == (5, 7, 7, 1)
    assert np.all(np.abs(before.y - 100) <= 1)
    assert np.all(np.abs(after.y) <= 1)


def test_data_list_says_where_things_are(capsys):
    assert main(["data", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("fashion_mnist", "mnist", "cifar10", "sea", "elec2", "markov", "python_docs"))
    assert "built in" in shown


def test_a_gallery_has_every_member(tmp_path, monkeypatch):
    """Two of them here: all of them are drawn when docs/tasks.png is made."""
    pytest.importorskip("matplotlib")
    few = {name: tasks.members()[name] for name in ("bit_flipping", "label_reset", "token_permutation")}
    monkeypatch.setattr(tasks, "members", lambda: few)
    out = tmp_path / "all.png"
    assert main(["gallery", "--out", str(out), "--samples", "2"]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
