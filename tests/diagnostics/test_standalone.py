"""The registry of diagnostics that are called on their own, and how the command line shows them."""

import inspect
import math
import re
from pathlib import Path

import pytest

from plasticity.__main__ import main
from plasticity.diagnostics import base, diagnose, diagnostics, standalones, unit_of
from plasticity.diagnostics import standalone as module
from plasticity.diagnostics.standalone import standalone
from plasticity.errors import UserError

STATED = {"unit": "u", "range": (0, 1), "cost": "one [gradient]", "reference": "Nobody 2000"}


@pytest.fixture
def registry(monkeypatch):
    """The module, with a copy of the registry that a test may add to."""
    monkeypatch.setattr(module, "_members", dict(standalones()))
    return module


def measured(loss, *batch, key: int = 0, share: "float" = 0.5, **rest: str) -> "Float[Array, 'n n']":
    """First line.

    Second paragraph with [brackets].
    """


def plain(x, *, order=3): ...


def test_registration_refuses_what_would_confuse(registry):
    def documented():
        """Documented."""

    for name, function, message in [
        ("srank", documented, "registered twice"),
        ("new/layer", documented, "no '/'"),
        ("new", plain, "docstring"),
    ]:
        with pytest.raises(TypeError, match=message):
            standalone(name=name, **STATED)(function)
    standalone(name="new", **STATED)(documented)
    standalone(name="new", **STATED)(documented)  # a module that is loaded again
    with pytest.raises(TypeError, match="registered twice"):
        standalone(name="new", **STATED)(measured)


def test_the_function_itself_is_unchanged(registry):
    assert standalone(name="measured", **STATED)(measured) is measured


def test_signature_has_one_argument_a_line(registry):
    standalone(name="measured", **STATED)(measured)
    member = registry.get("measured")
    address, *lines = member.signature.splitlines()
    assert address == f"{measured.__module__}.measured("
    assert [line.strip() for line in lines] == [
        "loss,",
        "*batch,",
        "key: int = 0,",
        "share: float = 0.5,",
        "**rest: str,",
        ") -> Float[Array, 'n n']",
    ]
    assert registry.Standalone("plain", function=plain, **STATED).signature.splitlines()[2:4] == [
        "    *,",
        "    order = 3,",
    ]
    assert member.summary == "First line."


def test_command_line_lists_and_describes(registry, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    standalone(name="measured", **STATED)(measured)
    assert main(["list", "diagnostics"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "First line. [u]" in shown.partition("called on their own")[2]
    assert main(["describe", "measured"]) == 0
    shown = capsys.readouterr().out
    for words in ("called on its own", "with [brackets]", "    *batch,", "unit: u; range: 0 to 1", "one [gradient]"):
        assert words in shown
    assert "reference: Nobody 2000" in shown
    assert main(["describe", "mesured"]) == 2
    assert "Did you mean 'measured'?" in capsys.readouterr().err


def test_names_that_one_records_have_a_unit_and_lead_to_it(registry, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    standalone(name="measured", **STATED, records={"measured_mean": "metres", "measured_max": "miles"})(measured)
    assert [unit_of(name) for name in ("measured_mean", "measured_max", "measured", "srank/h")] == [
        "metres",
        "miles",
        "u",
        "directions",
    ]
    assert registry.get("measured_max").name == "measured"
    assert main(["describe", "measured_max"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith("measured (diagnostic, called on its own)")
    assert "measured_mean metres measured_max miles" in shown
    with pytest.raises(UserError, match="'measured_max' is called on its own"):
        diagnose(choose=["measured_max"])
    with pytest.raises(UserError, match="Did you mean 'measured_max'"):
        unit_of("measured_maxx")
    with pytest.raises(TypeError, match="'srank' is registered twice"):
        standalone(name="other", **STATED, records={"srank": "directions"})(measured)


@pytest.mark.parametrize("name", [*diagnostics(), *standalones()])
def test_every_family_states_its_formulas(name):
    member = {**diagnostics(), **standalones()}[name]
    module = inspect.getmodule(getattr(member, "compute", None) or member.function)
    assert len(module.__doc__) > 200
    assert "arXiv" in module.__doc__ or "doi" in module.__doc__ or "Reference" in module.__doc__


def test_the_table_of_names_that_collide_is_of_names_that_exist():
    text = (Path(base.__file__).parent / "README.md").read_text()
    table = text.partition("## The same name")[2].partition("## Add one")[0]
    first = re.findall(r"^\| (`[^|]*`)[^|]* \|", table, re.MULTILINE)
    assert len(first) > 30
    assert set(re.findall(r"`(\w+)`", " ".join(first))) <= {*diagnostics(), *standalones()}


def test_describe_shows_the_formulas_of_the_family_as_they_are_written(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["describe", "srank"]) == 0
    shown = capsys.readouterr().out
    formula = "    srank           min k with sum_{i<=k} s_i / sum_i s_i >= 1 - delta"
    assert formula in shown
    assert "Names collide" in " ".join(shown.split())
    assert "reference: Kumar et al. 2021, arXiv:2010.14498" in shown
    assert "\n    effective rank" in shown  # rows of a table stay apart
    assert main(["describe", "tangent_kernel"]) == 0
    assert "    tangent kernel     K_ij = sum over outputs o" in capsys.readouterr().out


def test_unknown_names_are_matched_with_both_kinds(registry):
    standalone(name="measured", **STATED)(measured)
    for get in (registry.get, base.get):
        with pytest.raises(UserError, match="Did you mean 'measured'"):
            get("mesured")
        with pytest.raises(UserError, match="Did you mean 'stable_rank'"):
            get("stabel_rank")
    with pytest.raises(UserError, match=r"'measured' is called on its own, as .*\.measured"):
        diagnose(choose=["measured"])


@pytest.mark.parametrize("name", list(standalones()))
def test_every_member_says_what_it_is(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    member = standalones()[name]
    assert member.summary.endswith((".", ":"))
    assert member.unit
    assert member.cost
    assert member.reference
    low, high = member.range
    assert low < high or math.isnan(low)
    assert name not in diagnostics()
    assert main(["describe", name]) == 0
    assert f"{member.address}(" in capsys.readouterr().out
