"""Families find their members in their folder; a second member of a name, or one without a docstring, is refused."""

import sys

import pytest

from plasticity.config import Config
from plasticity.errors import UserError
from plasticity.registry import Family, summary

BASE = """
from plasticity.config import Config
from plasticity.registry import Family

colours: Family[Config] = Family("colour", "{package}")
"""
MEMBER = '''
from plasticity.config import traced
from {package} import base

@base.colours.register("{name}")
class {cls}(base.Config):
    """{name}, a colour.

    More of it.
    """

    depth: float = traced(1.0, ge=0, positional=True)
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in a temporary folder with one member in it, and a way to add files."""
    name = f"family_{tmp_path.name.replace('-', '_')}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "base.py").write_text(BASE.format(package=name))
    monkeypatch.syspath_prepend(str(tmp_path))

    def add(member, cls=None, file=None):
        text = MEMBER.format(package=name, name=member, cls=cls or member.title())
        (folder / f"{file or member}.py").write_text(text)
        return name

    yield add
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        del sys.modules[module]


def family_of(name) -> Family:
    import importlib

    return importlib.import_module(f"{name}.base").colours


def test_a_file_added_to_the_folder_is_a_member(package):
    package("red")
    name = package("blue")
    colours = family_of(name)
    assert f"{name}.red" not in sys.modules  # only asked-for families are imported
    assert list(colours.members()) == ["blue", "red"]
    red = colours.get("red")
    assert red.name == "red"
    assert red(2.0).depth == 2.0
    assert red in colours
    assert Config not in colours
    assert summary(red) == "red, a colour."


def test_an_unknown_name_has_a_nearest_match(package):
    colours = family_of(package("red"))
    with pytest.raises(UserError, match=r"unknown colour 'rde'. Did you mean 'red'\? Allowed: red"):
        colours.get("rde")


def test_a_name_is_given_once(package):
    package("red")
    name = package("red", cls="Crimson", file="crimson")
    with pytest.raises(TypeError, match="colour 'red' is registered twice"):
        family_of(name).members()


def test_a_reloaded_module_may_register_again(package):
    colours = family_of(package("red"))
    first = colours.get("red")
    again = type("Red", (Config,), {"__doc__": "Red.", "__qualname__": first.__qualname__})
    assert colours.register("red")(again) is colours.get("red")


@pytest.mark.parametrize("doc", [None, "", "  \n "])
def test_a_member_needs_a_docstring(doc):
    with pytest.raises(TypeError, match="colour 'red' needs a docstring"):
        Family("colour", "nowhere").register("red")(type("Red", (Config,), {"__doc__": doc}))
