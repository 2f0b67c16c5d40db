"""Presets: new defaults for inherited fields, everything else as it was."""

import dataclasses

import pytest

from plasticity.config import Config, static, traced
from plasticity.errors import UserError
from plasticity.presets import preset
from plasticity.registry import Family
from plasticity.spec import build_one, to_text


def family():
    """A family with a base, and two presets of it."""
    teas: Family[Config] = Family("tea", "plasticity.networks")
    teas._discovered = True

    @teas.register("tea")
    class Tea(Config):
        """Tea."""

        strength: float = traced(1.0, ge=0, le=10, positional=True, unit="spoons", help="how much")
        minutes: int = static(3, ge=1, help="how long")
        milk: bool = static(False, help="whether")

    @teas.register("builders")
    @preset(minutes=6, milk=True)
    class Builders(Tea):
        """Tea that has stood."""

    @teas.register("assam")
    @preset(strength=2.0)
    class Assam(Builders):
        """A preset of a preset."""

    return teas, Tea, Builders, Assam


TEAS, Tea, Builders, Assam = family()


def test_defaults_change_and_the_base_does_not():
    assert dataclasses.astuple(Tea()) == (1.0, 3, False)
    assert dataclasses.astuple(Builders()) == (1.0, 6, True)
    assert dataclasses.astuple(Assam()) == (2.0, 6, True)
    assert Builders(5.0, milk=False) == Builders(strength=5.0, milk=False)


def test_order_metadata_and_kind_are_inherited():
    for cls in (Builders, Assam):
        mine, theirs = dataclasses.fields(cls), dataclasses.fields(Tea)
        assert [f.name for f in mine] == [f.name for f in theirs]
        assert [f.metadata for f in mine] == [f.metadata for f in theirs]
        assert [f.type for f in mine] == [f.type for f in theirs]
    with pytest.raises(UserError, match="builders: minutes must be >= 1, got 0"):
        Builders(minutes=0)


def test_text_names_what_differs_from_the_presets_own_defaults():
    assert to_text(Builders()) == "builders"
    assert to_text(Builders(minutes=3)) == "builders(minutes=3)"
    assert to_text(Assam(1.0)) == "assam(1)"
    assert build_one("assam(minutes=9)", TEAS) == Assam(2.0, 9, True)
    assert list(TEAS.members()) == ["assam", "builders", "tea"]


def test_a_name_that_is_no_field_is_refused():
    with pytest.raises(TypeError, match=r"Green: no field 'minute'; there are strength, minutes, milk"):

        @preset(minute=2)
        class Green(Tea):
            """Steeped too long."""


def test_above_register_it_would_come_too_late():
    with pytest.raises(TypeError, match=r"Late is registered already: preset belongs below Family\.register"):

        @preset(minutes=2)
        @TEAS.register("late")
        class Late(Tea):
            """The wrong way round."""
