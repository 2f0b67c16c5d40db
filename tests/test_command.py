"""What the user meets first: `import plasticity`, and the `plasticity` command."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from members import FAMILIES, MEMBERS

import plasticity
from plasticity import doctor
from plasticity.__main__ import main
from plasticity.diagnostics import diagnostics

ROOT = Path(plasticity.__file__).resolve().parent.parent
HEAVY = ("flax", "seaborn", "pandas", "torch", "matplotlib", "tyro", "rich", "scipy", "jax", "optax")


def python(code) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_is_light():
    code = f"import sys, plasticity; print([m for m in {HEAVY} if m in sys.modules])"
    assert python(code) == "[]"


def test_diagnostics_and_capture_bring_nothing_optional():
    optional = [name for name in HEAVY if name not in ("jax", "optax")]
    code = "import sys, plasticity as p; p.diagnose, p.capture, p.Mitigation; "
    assert python(code + f"print([m for m in {optional} if m in sys.modules])") == "[]"


def test_capture_is_the_function_though_its_module_has_the_same_name():
    code = (
        "import plasticity; from plasticity.capture import tap; import plasticity.capture; "
        "print(callable(plasticity.capture), plasticity.tap is tap)"
    )
    assert python(code) == "True True"


def test_every_public_name_is_there():
    for name in plasticity.__all__:
        assert getattr(plasticity, name) is not None
        assert name in dir(plasticity)
    assert plasticity.mitigations.mitigations.get("l2").name == "l2"
    assert isinstance(plasticity.__version__, str)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        plasticity.nonsense  # noqa: B018


def test_mitigation_reads_a_spec_in_the_order_of_composition():
    assert plasticity.to_text(plasticity.mitigation("redo(tau=0.1)+layer_norm")) == "layer_norm+redo(tau=0.1)"
    with pytest.raises(plasticity.UserError, match="crelu and gelu cannot be combined"):
        plasticity.mitigation("gelu+crelu")


LISTED = ("mitigation", "network", "optimizer")


def test_list_names_every_member_of_every_family(capsys):
    assert main(["list"]) == 0
    words = capsys.readouterr().out.replace("(", " ").split()
    assert {member for family, member in MEMBERS if family in LISTED} <= set(words)
    assert set(diagnostics()) <= set(words)


def test_list_of_one_family_shows_defaults_and_references(capsys):
    assert main(["list", "mitigations"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "l2(strength=1e-5)" in shown
    assert "arXiv:2302.12902" in shown
    assert "srank" not in shown
    assert main(["list", "diagnostics"]) == 0
    assert "dormant_units(tau=0.025)" in capsys.readouterr().out


@pytest.mark.parametrize(("family", "member"), [(f, m) for f, m in MEMBERS if f in LISTED])
def test_describe_shows_every_field_with_default_unit_and_range(family, member, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "240")  # no help is wrapped, so a line begins with a field's name once
    assert main(["describe", member]) == 0
    shown = capsys.readouterr().out
    cls = FAMILIES[family].get(member)
    for field in dataclasses.fields(cls):
        # After the heading: a docstring may begin a line with the word.
        _, _, table = shown.partition("\nfields ")
        (line,) = (words for text in table.splitlines() if (words := text.split()) and words[0] == field.name)
        assert line[1] == field.metadata["type"].__name__ + ("*" if field.metadata["static"] else "")
        for bound, sign in (("ge", ">="), ("gt", ">")):
            if field.metadata[bound] is not None:
                assert sign in line
        assert all(word in line for word in field.metadata["unit"].split()[:1])
    assert ("reference:" in shown) == bool(cls.reference)


@pytest.mark.parametrize("name", list(diagnostics()))
def test_describe_shows_diagnostics(name, capsys):
    assert main(["describe", name]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"unit: {diagnostics()[name].unit}" in shown
    assert all(threshold in shown for threshold in diagnostics()[name].thresholds)
    assert "reference:" in shown


def test_describe_shows_brackets_as_they_are(capsys):
    """Which rich would take for markup: `[relu(z), relu(-z)]`."""
    main(["describe", "crelu"])
    assert "[relu(z), relu(-z)]" in capsys.readouterr().out


def test_choices_are_shown_as_a_spec_has_them(capsys):
    """`nature(padding=same)` would be refused."""
    main(["describe", "nature"])
    assert "padding str* SAME" in " ".join(capsys.readouterr().out.split())
    main(["list", "networks"])
    assert "padding=SAME" in "".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["describe", "rdo"], "error: unknown name 'rdo'. Did you mean 'redo'? Allowed: "),
        (["describe", "sranc"], "Did you mean 'srank'?"),
        (["list", "mitigation"], "error: unknown family 'mitigation'. Did you mean 'mitigations'? Allowed: all, "),
    ],
)
def test_a_mistake_is_a_message_and_exit_code_2(args, message, capsys):
    assert main(args) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_an_unknown_command_is_exit_code_2():
    done = subprocess.run(
        [sys.executable, "-m", "plasticity", "lst"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


# doctor -----------------------------------------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone of empty folders, which is the current folder."""
    for name in doctor.FOLDERS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
        (tmp_path / name / "__main__.py").write_text("")
    (tmp_path / "pyproject.toml").write_text("[project]\noptional-dependencies = {}\n")
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    # A virtual environment may well lie in the real clone.
    installed = [p for p in sys.path if "site-packages" in p or not Path(p).resolve().is_relative_to(ROOT)]
    monkeypatch.setattr(sys, "path", ["", *installed])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_doctor_reports(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "folders", lambda: [("tasks", "python -m tasks", True)])
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for word in ("jax", "python", "cpu", "tasks", "optional parts", "compiled programs"):
        assert word in shown


def test_folders_of_a_clone_are_found(clone):
    assert [(name, fine) for name, _, fine in doctor.folders()] == [(name, True) for name in doctor.FOLDERS]


def test_a_shadowed_folder_is_a_fault_that_names_the_file(clone, tmp_path_factory, monkeypatch, capsys):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "sweeps.py").write_text("")
    monkeypatch.chdir(elsewhere)
    found = {name: (text, fine) for name, text, fine in doctor.folders()}
    assert found["sweeps"] == (f"shadowed by {elsewhere / 'sweeps.py'}; run  python -m sweeps  in {clone}", False)
    assert found["tasks"] == (f"not found from here; run  python -m tasks  in {clone}", True)
    assert main(["doctor"]) == 1


def test_a_folder_that_is_missing_is_a_fault_and_an_empty_one_is_not(clone):
    (clone / "rl" / "__main__.py").unlink()
    shutil.rmtree(clone / "tasks")
    found = {name: (text, fine) for name, text, fine in doctor.folders()}
    assert found["rl"] == ("there is nothing to run in it yet", True)
    assert found["tasks"] == (f"missing: {clone / 'tasks'}", False)


def test_without_a_clone_nothing_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    assert all(fine for _, _, fine in doctor.folders())


def test_optional_parts_say_how_to_install_what_they_lack(clone, capsys):
    (clone / "pyproject.toml").write_text(
        '[project]\noptional-dependencies = {have = ["jax>=0.1"], lack = ["no-such-thing[x]>=1"], cuda12 = ["y"]}\n'
    )
    assert doctor.missing_by_extra() == {"have": [], "lack": ["no-such-thing"]}
    main(["doctor"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "lacks no-such-thing: pip install -e '.[lack]'" in shown


def test_no_device_is_a_fault(monkeypatch, capsys):
    def fail():
        raise RuntimeError("no driver")

    monkeypatch.setattr("plasticity.provenance.provenance", fail)
    monkeypatch.setattr(doctor, "folders", list)
    assert main(["doctor"]) == 1
    assert "JAX finds no device: no driver" in capsys.readouterr().out
