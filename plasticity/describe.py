"""How the members of a family are shown on a terminal: one renderer for every command line of the suite.

A member's own class says everything: its docstring, its fields with type, default, unit and range, its reference.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from plasticity import measured
from plasticity.config import Config, allowed_range
from plasticity.diagnostics.base import Diagnostic
from plasticity.diagnostics.standalone import Standalone
from plasticity.mitigations.base import Mitigation
from plasticity.registry import summary
from plasticity.spec import format_number

STATIC_NOTE = "* static: each value is another compiled program; the others are swept in one"


def listing(title: str, rows: Iterable[tuple[str, ...]]) -> Table:
    """A table of members: (spec with all defaults, one line, reference, whatever else there is to say)."""
    table = Table(box=SIMPLE_HEAD, title=f"\n{title}", title_justify="left", pad_edge=False)
    table.add_column("name", overflow="fold", ratio=2)
    table.add_column("what it is", ratio=3)
    for name, line, *further in rows:
        lines: list[RenderableType] = [Text(line)]
        lines += [Text(words, style="dim") for words in further if words]
        table.add_row(Text(name, overflow="fold"), Group(*lines))
    return table


def config_row(name: str, cls: type[Config]) -> tuple[str, str, str]:
    """A config class as a row of `listing`."""
    parts = [f"{f.name}={_value(f.default)}" for f in dataclasses.fields(cls)]  # pyrefly: ignore
    return f"{name}({', '.join(parts)})" if parts else name, summary(cls), getattr(cls, "reference", "")


def mitigation_row(name: str, cls: type[Mitigation]) -> tuple[str, ...]:
    """A mitigation as a row of `listing`: also its stage, its cost, and what the suite measured of its effect."""
    effects = measured.of(name)
    effect = f"measured: {'; '.join(map(str, effects))}" if effects else "measured: not yet"
    return *config_row(name, cls), f"stage: {cls.stage}; cost: {cls.cost}", effect


def describe_effects(console: Console, name: str) -> None:
    """Print what the suite measured of a mitigation's effect, alone and beside others."""
    found = [effect for effect in measured.effects() if effect.mitigation == name]
    if not found:
        console.print("\neffect measured by this suite: none yet")
        return
    table = _table("effect measured by this suite: gain in the late end-of-task score", "task", "added to", "gain")
    table.add_column("seeds")
    table.add_column("of", overflow="fold")
    for e in found:
        gain = f"{e.gain:+.2f} [{e.low:+.2f}, {e.high:+.2f}]"
        table.add_row(e.task, escape(e.beside), escape(gain), str(e.n), escape(f"{e.spec}; {e.study}"))
    console.print(table)


def diagnostic_row(diagnostic: Diagnostic) -> tuple[str, str, str]:
    """A diagnostic as a row of `listing`."""
    parts = [f"{name}={_value(default)}" for name, default in diagnostic.thresholds.items()]
    name = f"{diagnostic.name}({', '.join(parts)})" if parts else diagnostic.name
    return name, f"{diagnostic.summary} [{diagnostic.unit}]", diagnostic.reference


def standalone_row(member: Standalone) -> tuple[str, str, str]:
    """A diagnostic that is called on its own as a row of `listing`."""
    return member.name, f"{member.summary} [{member.unit}]", member.reference


def describe_config(
    console: Console, name: str, cls: type[Config], what: str, last: Collection[str] = frozenset()
) -> None:
    """Print a config class: `what` it is, its docstring, its fields and its reference.

    last: names of fields to be shown after the others, such as those that a whole family has.
    """
    _head(console, name, what, cls.__doc__)
    fields = dataclasses.fields(cls)  # pyrefly: ignore
    if fields:
        table = _table("fields", "field", "type", "default")
        table.add_column("range", max_width=18, overflow="fold")
        table.add_column("help")
        for f in sorted(fields, key=lambda f: f.name in last):
            table.add_row(f.name, *(escape(text) for text in _columns(f)))
        console.print(table)
        console.print(STATIC_NOTE, style="dim")
    else:
        console.print("\nno fields")
    _reference(console, getattr(cls, "reference", ""))


def describe_diagnostic(console: Console, diagnostic: Diagnostic) -> None:
    """Print a diagnostic: its docstring, thresholds, unit, range, needs and reference, and its module's docstring."""
    _head(console, diagnostic.name, "diagnostic", diagnostic.compute.__doc__)
    low, high = (format_number(bound) for bound in diagnostic.range)
    console.print(f"\nunit: {escape(diagnostic.unit)}; range: {low} to {high}")
    console.print(f"needs: {', '.join(diagnostic.needs)}; cost: {escape(diagnostic.cost)}")
    if diagnostic.thresholds:
        table = _table("thresholds", "name", "default")
        for name, default in diagnostic.thresholds.items():
            table.add_row(name, _value(default))
        console.print(table)
    _reference(console, diagnostic.reference)
    _family(console, diagnostic.compute)


def describe_standalone(console: Console, member: Standalone) -> None:
    """Print a diagnostic that is called on its own: docstring, signature, unit, range, cost, reference, its module."""
    _head(console, member.name, "diagnostic, called on its own", member.function.__doc__)
    console.print(f"\n{escape(member.signature)}")
    low, high = (format_number(bound) for bound in member.range)
    console.print(f"\nunit: {escape(member.unit)}; range: {low} to {high}")
    console.print(f"cost: {escape(member.cost)}")
    if member.records:
        table = _table("recorded", "name", "unit")
        for name, unit in member.records.items():
            table.add_row(name, escape(unit))
        console.print(table)
    _reference(console, member.reference)
    _family(console, member.function)


def _head(console: Console, name: str, what: str, docstring: str | None) -> None:
    console.print(f"[bold]{escape(name)}[/bold] ({escape(what)})\n")
    _prose(console, docstring or "")


def _family(console: Console, function: Callable[..., Any]) -> None:
    """The docstring of a diagnostic's module: formulas, what is degenerate, cost, and names that collide."""
    module = sys.modules[function.__module__]
    console.print(f"\n[dim]{module.__name__}[/dim]\n")
    _prose(console, module.__doc__ or "")


def _prose(console: Console, docstring: str) -> None:
    """A docstring's paragraphs, wrapped; indented blocks are formulas, tables and code, to be left as they are."""
    for i, block in enumerate(inspect.cleandoc(docstring).split("\n\n")):
        indented = block.startswith(" ")
        console.print("\n" * (i > 0) + escape(block if indented else _paragraphs(block)), soft_wrap=indented)


def _reference(console: Console, reference: str) -> None:
    if reference:
        console.print(f"\nreference: {escape(reference)}")


def _table(title: str, *columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 0), pad_edge=False, title=f"\n{title}", title_justify="left")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _value(value: Any) -> str:
    """As a spec has it: `none`, `true`, but a choice in its own capitals."""
    if isinstance(value, float):
        return format_number(value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _columns(f: dataclasses.Field) -> tuple[str, ...]:
    meta = f.metadata
    return (
        meta["type"].__name__ + ("*" if meta["static"] else ""),
        f"{_value(f.default)} {meta['unit']}",
        ", ".join(meta.get("choices") or ()) or allowed_range(meta),
        meta["help"],
    )


def _paragraphs(text: str) -> str:
    """A docstring with each paragraph and each item of a list on one line, to be wrapped by the console."""
    return re.sub(r"(?<=\S)\n *(?=[^\s-])", " ", inspect.cleandoc(text))
