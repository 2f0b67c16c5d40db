"""The command line: bad input is a message and exit code 2 before any compute; looking writes nothing."""

from __future__ import annotations

import gzip
import json

import pytest
from tiny_study import FINE, files, laid_out, request, statuses, task, tiny

from sweeps import program
from sweeps.__main__ import main
from sweeps.command import execute
from sweeps.run import Run
from sweeps.study import studies
from tasks.data.load import EMBEDDED

#: The task of a sweep that is about something else.
ONE = task()


@pytest.fixture
def idle(monkeypatch, tmp_path):
    """Fails the test if anything is computed or written."""

    def computed(*_, **__):
        raise AssertionError("computed")

    monkeypatch.setattr(program, "begin", computed)
    before = files(tmp_path)
    yield
    assert files(tmp_path) == before


def refused(capsys, *arguments: str) -> str:
    """Run a command that must be refused; its message."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    message = captured.err
    assert message.startswith("error: ")
    assert "Traceback" not in captured.out + message
    return message


def grid(*, tasks=(ONE,), mitigations=("none",), network="mlp(8)", optimizer="adam", seeds="1", more=()):
    """The arguments of a small sweep."""
    axes = ["--task", *tasks, "--mitigations", *mitigations, "--network", network, "--optimizer", optimizer]
    return ["grid", "--name", "mine", *axes, "--seeds", seeds, "--no-fresh", *more]


SPECS = {
    "unknown mitigation": (
        {"mitigations": ["layernorm"]},
        "unknown mitigation 'layernorm'. Did you mean 'layer_norm'?",
    ),
    "unknown task": ({"tasks": ["label_rest"]}, "unknown task 'label_rest'. Did you mean 'label_reset'?"),
    "unknown network": ({"network": "mpl"}, "unknown network 'mpl'. Did you mean 'mlp'?"),
    "unknown optimizer": ({"optimizer": "adm"}, "unknown optimizer 'adm'. Did you mean 'adam'?"),
    "unknown field": ({"mitigations": ["redo(tua=1)"]}, "unknown field of redo 'tua'. Did you mean 'tau'?"),
    "position of a name": ({"mitigations": ["layer_norm+l3"]}, "at position 11"),
    "two members at once": ({"network": "mlp+mlp"}, "expected exactly one network, got 2"),
    "unclosed": ({"mitigations": ["l2(1e-3"]}, "expected ',' or ')', found the end of the text at position 7"),
    "stray sign": ({"mitigations": ["l2(1e-3)+"]}, "expected a name, found the end of the text at position 9"),
    "stray character": ({"mitigations": ["l2;layer_norm"]}, "unexpected character ';' at position 2"),
    "word for a number": ({"mitigations": ["l2(much)"]}, "l2: strength must be a number, got 'much'"),
    "not a number": ({"mitigations": ["l2(1e999)"]}, "l2: strength must be a finite number, got inf"),
    "negative strength": ({"mitigations": ["l2(-1)"]}, "l2: strength must be >= 0, got -1.0"),
    "eps above 1": ({"tasks": ["label_reset(eps=1.5)"]}, "label_reset: eps must be >= 0 and <= 1, got 1.5"),
    "eps below 0": ({"tasks": ["label_reset(eps=-0.1)"]}, "label_reset: eps must be >= 0 and <= 1, got -0.1"),
    "zero steps": ({"tasks": ["label_reset(steps=0)"]}, "label_reset: steps must be >= 1, got 0"),
    "half a step": ({"tasks": ["label_reset(steps=0.5)"]}, "label_reset: steps must be a whole number, got 0.5"),
    "large batch": ({"tasks": [task(batch_size=41)]}, "batch_size must be at most examples_used (40), got 41"),
    "too many examples": ({"tasks": [task(examples_used=10_001)]}, "has 10000 examples, examples_used asks for 10001"),
    "pool": ({"tasks": [task(pool=3)]}, "pool must divide the image size 28 x 28, got 3; allowed: 1, 2, 4, 7, 14, 28"),
    "no rate": ({"optimizer": "sgd(0)"}, "sgd: lr must be > 0, got 0"),
    "no width": ({"network": "mlp(0)"}, "mlp: width must be >= 1, got 0"),
    "two activations": (
        {"mitigations": ["crelu+tanh"]},
        "crelu and tanh cannot be combined: each sets the network's activation",
    ),
    "twice": ({"mitigations": ["l2+l2(1e-3)"]}, "mitigation 'l2' is given 2 times; give it once"),
    "head of numbers": (
        {"mitigations": ["two_hot"]},
        "two_hot needs a regression task or an agent with scalar values; here the targets are classes already",
    ),
    "no seeds": ({"seeds": "0"}, "seeds must be >= 1, got 0"),
    "executor": (
        {"more": ["--executor", "inlin"]},
        "unknown executor 'inlin'. Did you mean 'inline'? Allowed: inline, processes",
    ),
    "workers": ({"more": ["--workers", "-1"]}, "--workers must be >= 0, got -1"),
    "lanes": ({"more": ["--lanes", "-3"]}, "--lanes must be >= 0, got -3"),
    "chunk": ({"more": ["--chunk-updates", "0"]}, "--chunk-updates must be >= 1, got 0"),
    "save": ({"more": ["--save-seconds", "-1"]}, "--save-seconds must be >= 0, got -1.0"),
    "save never": ({"more": ["--save-seconds", "nan"]}, "--save-seconds must be >= 0, got nan"),
}


@pytest.mark.parametrize("case", SPECS)
def test_impossible_sweeps_are_refused(case, capsys, idle):
    changes, expected = SPECS[case]
    message = refused(capsys, *grid(**changes))
    assert expected in message
    dry = refused(capsys, *grid(**{**changes, "more": [*changes.get("more", []), "--dry-run"]}))
    assert dry == message


def test_two_heads_are_refused(capsys, idle):
    """As two_hot is the only head so far, the second one is itself, with other bins."""
    message = refused(capsys, *grid(tasks=["offset_regression"], mitigations=["two_hot(11)+two_hot(51)"]))
    assert "mitigation 'two_hot' is given 2 times" in message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["run", "factoral"],
            "Did you mean 'factorial'? Allowed: agents, all_mitigations, all_tasks, factorial",
        ),
        (["plan", "factoral"], "unknown study 'factoral'. Did you mean 'factorial'?"),
        (["run", "factorial", "--scale", "labtop"], "Did you mean 'laptop'? Allowed: laptop, paper, smoke"),
        (["run", "factorial", "--scale", "smoke", "--executor", "slum"], "unknown executor 'slum'"),
        (["run", "factorial", "--scale", "smoke", "--lanes", "-1"], "--lanes must be >= 0, got -1"),
        (["status", "nowhere"], "no such file: nowhere/study.json"),
        (["retry", "nowhere"], "no such file: nowhere/study.json"),
    ],
)
def test_unknown_names_are_refused(arguments, expected, capsys, idle):
    assert expected in refused(capsys, *arguments)


def data_files(folder, change):
    """The embedded images and labels in `folder`, the images changed; the path of the images."""
    source = EMBEDDED["fashion_mnist"]
    content = gzip.decompress(source.read_bytes())
    (folder / "images-idx3-ubyte").write_bytes(change(content))
    (folder / "labels-idx1-ubyte").write_bytes(
        gzip.decompress(source.with_name("t10k-labels-idx1-ubyte.gz").read_bytes())
    )
    return folder / "images-idx3-ubyte"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda data: data[:-1], "is truncated: expected 7840016 bytes"),
        (lambda data: data[:10], "is truncated: the header has 16 bytes, found 10"),
        (lambda data: b"\x00\x00\x0d\x03" + data[4:], "must be unsigned bytes (idx type 0x08), found idx type 0x0d"),
        (lambda data: b"\x89PNG" + data[4:], "is in no format that is read here"),
        (lambda data: b"", "it begins with nothing"),
    ],
)
def test_damaged_data_files_are_refused(change, expected, capsys, tmp_path, request):
    path = data_files(tmp_path, change)
    request.getfixturevalue("idle")
    assert expected in refused(capsys, *grid(tasks=[task(data=path)]))


def test_a_missing_data_file_is_refused(capsys, tmp_path, request):
    path = data_files(tmp_path, bytes)
    request.getfixturevalue("idle")
    message = refused(capsys, *grid(tasks=[task(data=str(path).replace("images", "image"))]))
    assert "no data set or file" in message
    assert f"Did you mean '{path}'?" in message
    path.with_name("labels-idx1-ubyte").rename(tmp_path / "elsewhere")
    refused(capsys, *grid(tasks=[task(data=path)]))
    path.with_name("elsewhere").rename(tmp_path / "labels-idx1-ubyte")


def test_a_folder_of_another_sweep_is_refused(capsys, tmp_path, request):
    laid_out(tmp_path / "study", tiny())
    (tmp_path / "file").write_text("")
    request.getfixturevalue("idle")
    message = refused(capsys, *grid(more=["--out", "study"]))
    assert "study holds study 'tiny' at scale 'own', not 'mine' at 'own'; choose another --out" in message
    assert "is a file, not a folder" in refused(capsys, *grid(more=["--out", "file"]))


@pytest.mark.parametrize("arguments", [["grid"], ["run"], ["grid", "--seeds", "many"], ["fly"], []])
def test_a_command_that_cannot_be_read_is_refused(arguments, capsys, idle):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


# Looking writes nothing -------------------------------------------------------------------------------------------


def test_plan_and_dry_run_write_nothing(capsys, idle, tmp_path):
    assert main(["plan", "factorial", "--scale", "smoke"]) == 0
    planned = capsys.readouterr().out
    assert "runs to compute" in planned
    assert "compiled programs" in planned
    assert "MiB" in planned
    assert main(["run", "factorial", "--scale", "smoke", "--dry-run"]) == 0
    assert capsys.readouterr().out == planned
    assert main([*grid(seeds="3"), "--subsets", "l2(1e-3)", "layer_norm", "--out", "deep/below", "--dry-run"]) == 0
    # `none` of the mitigations and of the subsets is one run.
    output = capsys.readouterr().out
    assert "mine: 12 runs to compute" in output
    assert "2 groups, 2 compiled programs, 180 updates over all runs" in output
    assert list(tmp_path.iterdir()) == []


def test_print_config_is_the_whole_study(capsys, idle, tmp_path):
    assert main(["run", "factorial", "--scale", "smoke", "--print-config"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["name"] == "factorial"
    assert told["scale"] == "smoke"
    assert len(told["configs"]) == told["runs"] == len(studies()["factorial"].scale("smoke").grid.runs())
    for run_id, config in told["configs"].items():
        assert Run.from_config(config).id == run_id
    assert list(tmp_path.iterdir()) == []


def test_list_names_every_study_and_scale(capsys, idle):
    assert main(["list"]) == 0
    output = capsys.readouterr().out
    for name, study in studies().items():
        assert name in output
        for scale in study.scales:
            assert scale in output
            assert str(len(study.scale(scale).grid.runs())) in output


def test_help_says_what_there_is(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    output = capsys.readouterr().out
    assert all(name in output for name in ("list", "plan", "run", "grid", "status", "retry"))


def test_status_counts_and_exits(capsys, tmp_path, finished):
    assert main(["status", str(finished)]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "4 of 4 runs finished" in output
    assert "next: python -m analysis report" in output
    laid_out(tmp_path / "open", tiny())
    assert main(["status", str(tmp_path / "open")]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "0 of 4 runs finished" in output
    assert "next:" not in output


def test_status_lists_tasks_as_the_study_has_them_and_no_mitigation_first(capsys, tmp_path):
    """In whatever order the groups lie on disk: one a combination here."""
    streams = {"zebra": task(), "ant": task(num_tasks=2)}
    laid_out(tmp_path, tiny(("l2(1e-3)", "layer_norm+l2(1e-3)", "none"), tasks=streams), lanes=1)
    assert main(["status", str(tmp_path)]) == 0
    rows = [line.split("│")[1:3] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    labels = ["none", "l2(0.001)", "layer_norm+l2(0.001)"]
    assert [[cell.strip() for cell in row] for row in rows] == [[key, label] for key in streams for label in labels]


def test_a_grid_that_becomes_another_one_is_counted_whole(capsys, tmp_path):
    """Neither grid has all runs of the folder: 2 x 2 and then 1 x 2 others."""
    folder = tmp_path / "study"
    assert execute(request(tiny(), folder, **FINE)) == 0
    laid_out(folder, tiny(("l2(1e-2)",), 2))
    capsys.readouterr()
    assert main(["status", str(folder)]) == 0
    assert "4 of 6 runs finished" in " ".join(capsys.readouterr().out.split())
    assert len(statuses(folder)) == 6


def test_a_sweep_from_the_command_line(capsys, tmp_path):
    """The product of the axes is what the folder has; the same command again has nothing to do."""
    arguments = grid(tasks=[task(), task(eps=0.5)], mitigations=["none", "l2(1e-3)"], seeds="2", network="mlp(8, 1)")
    assert main(arguments) == 0
    folder = tmp_path / "runs" / "mine"
    assert list(statuses(folder).values()) == [("done", None)] * 8
    meta = json.loads((folder / "study.json").read_text())
    assert [t["key"] for t in meta["tasks"]] == [text.replace(" ", "") for text in (task(), task(eps=0.5))]
    assert meta["runs"] == 8
    assert meta["claims"] == []
    before = {name: (folder / "groups" / name).stat().st_mtime_ns for name in files(folder / "groups")}
    capsys.readouterr()
    assert main(arguments) == 0
    assert "0 runs to compute, 8 finished before" in capsys.readouterr().out
    assert before == {name: (folder / "groups" / name).stat().st_mtime_ns for name in files(folder / "groups")}
