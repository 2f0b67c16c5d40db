"""The registry of diagnostics that are called on their own: they need a loss function, a model or keys.

`diagnose` runs what is a function of activations, parameters, gradients and updates. Curvature, kernels and probes are
not; each is a function with its own signature under the decorator `standalone`, which states what every diagnostic
states. The packages in `HOMES` are imported the first time somebody asks, so that a new one is one new file and no list
is edited; other distributions join through the entry-point group `plasticity.diagnostics`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from plasticity.diagnostics import base
from plasticity.errors import unknown

F = TypeVar("F", bound=Callable[..., Any])

#: Where they are found, besides this package: packages with all their modules, or single modules.
HOMES = ("plasticity.curvature", "plasticity.probes")


@dataclass(frozen=True)
class Standalone:
    """name: as it is listed and, in records, written. unit: of the value. range: lowest and highest value.

    cost: in words, time and memory. reference: author, year, identifier. function: the diagnostic itself. records: for
    a function that gives several numbers in a mapping, to be recorded: their names with their units.
    """

    name: str
    unit: str
    range: tuple[float, float]
    cost: str
    reference: str
    function: Callable[..., Any]
    records: Mapping[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return inspect.cleandoc(self.function.__doc__ or "").splitlines()[0]

    @property
    def address(self) -> str:
        """The shortest dotted name under which the function can be imported."""
        module, name = self.function.__module__, self.function.__qualname__
        package = module.rpartition(".")[0]
        exported = getattr(sys.modules.get(package), name, None) is self.function
        return f"{package if exported else module}.{name}"

    @property
    def signature(self) -> str:
        """How it is called, one argument a line."""
        signature = inspect.signature(self.function)
        lines, bare_star = [], False
        for p in signature.parameters.values():
            bare_star |= p.kind is p.VAR_POSITIONAL
            if p.kind is p.KEYWORD_ONLY and not bare_star:
                lines.append("    *,")
                bare_star = True
            star = "*" if p.kind is p.VAR_POSITIONAL else "**" if p.kind is p.VAR_KEYWORD else ""
            default = "" if p.default is p.empty else f" = {p.default!r}"
            lines.append(f"    {star}{p.name}{_annotation(': ', p.annotation)}{default},")
        return "\n".join([f"{self.address}(", *lines, f"){_annotation(' -> ', signature.return_annotation)}"])


def _annotation(before: str, annotation: Any) -> str:
    if annotation is inspect.Signature.empty:
        return ""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return before + text


_members: dict[str, Standalone] = {}
_discovered = False


def standalone(
    *,
    name: str,
    unit: str,
    range: tuple[float, float],
    cost: str,
    reference: str,
    records: Mapping[str, str] | None = None,
) -> Callable[[F], F]:
    """Decorator: register a function with a signature of its own under `name`, and the names that it `records`.

    Raises TypeError on a name that another function or a diagnostic of `diagnose` has, a name with `/`, and a missing
    docstring.
    """

    def decorate(function: F) -> F:
        if not (function.__doc__ or "").strip():
            raise TypeError(f"diagnostic {name!r} needs a docstring: it is what `describe` prints")
        if "/" in name:
            raise TypeError(f"diagnostic {name!r}: no '/' in a name, it separates the layer")
        known = _members.get(name)
        if known is not None and _where(known.function) != _where(function):
            raise TypeError(f"diagnostic {name!r} is registered twice: {known.function} and {function}")
        if taken := base._members.keys() & {name, *(records or {})}:
            first = min(taken)
            raise TypeError(f"diagnostic {first!r} is registered twice: {base._members[first].compute} and {function}")
        _members[name] = Standalone(name, unit, range, cost, reference, function, records or {})
        return function

    return decorate


def _where(function: Callable[..., Any]) -> tuple[str, str]:
    return function.__module__, function.__qualname__


def standalones() -> dict[str, Standalone]:
    """All diagnostics that are called on their own, by name, in alphabetical order."""
    global _discovered
    if not _discovered:
        # Those of `diagnose` first: a name that both kinds want is refused when the second asks for it.
        base.diagnostics()
        for home in HOMES:
            module = importlib.import_module(home)
            for info in pkgutil.iter_modules(getattr(module, "__path__", ())):
                importlib.import_module(f"{home}.{info.name}")
        _discovered = True
    return dict(sorted(_members.items()))


def recorders() -> dict[str, Standalone]:
    """The diagnostic that records each name, for all names that are recorded and are not a diagnostic's own."""
    return {name: member for member in standalones().values() for name in member.records}


def get(name: str) -> Standalone:
    """The diagnostic called `name`, or that records it; a `UserError` with the nearest match, of either kind."""
    members = {**recorders(), **standalones()}
    if name not in members:
        raise unknown("diagnostic", name, {*members, *base.diagnostics()})
    return members[name]
