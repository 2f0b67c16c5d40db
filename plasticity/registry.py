"""Families of named components, discovered from their folder: adding a member is adding one file.

A family is one kind of pluggable thing (mitigations, networks, optimizers, tasks, ...). Its members are
`Config` classes registered under a name by a decorator in a module of the family's package. The package is
imported as a whole the first time somebody asks for a member, never before, so `import plasticity` stays
light. Other distributions join through the entry-point group `plasticity.<family>`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from plasticity.config import Config, config
from plasticity.errors import unknown

C = TypeVar("C", bound=Config)


class Family(Generic[C]):
    """The members of one kind, by name."""

    def __init__(self, singular: str, package: str) -> None:
        self.singular = singular
        self.package = package
        self._members: dict[str, type[C]] = {}
        self._discovered = False

    def register(self, name: str) -> Callable[[type[C]], type[C]]:
        """Class decorator: make the class a config and a member of this family under `name`."""

        def decorate(cls: type[C]) -> type[C]:
            if not (cls.__doc__ or "").strip():
                raise TypeError(f"{self.singular} {name!r} needs a docstring: it is what `describe` prints")
            cls = config(cls)
            cls.name = name  # pyrefly: ignore
            known = self._members.get(name)
            if known is not None and known.__qualname__ != cls.__qualname__:
                raise TypeError(f"{self.singular} {name!r} is registered twice: {known} and {cls}")
            self._members[name] = cls
            return cls

        return decorate

    def _discover(self) -> None:
        if self._discovered:
            return
        package = importlib.import_module(self.package)
        for info in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{info.name}")
        for point in entry_points(group=f"plasticity.{self.package.rpartition('.')[2]}"):
            point.load()
        self._discovered = True

    def members(self) -> dict[str, type[C]]:
        """All members by name, in alphabetical order."""
        self._discover()
        return dict(sorted(self._members.items()))

    def get(self, name: str) -> type[C]:
        """The member called `name`; a `UserError` with the nearest match if there is none."""
        self._discover()
        if name not in self._members:
            raise unknown(self.singular, name, self._members)
        return self._members[name]

    def __contains__(self, cls: Any) -> bool:
        return cls in self.members().values()


def summary(cls: type) -> str:
    """The first line of a member's docstring."""
    return inspect.cleandoc(cls.__doc__ or "").splitlines()[0]
