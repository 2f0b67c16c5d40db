"""Presets: members of a family that differ from their base in the defaults of its fields only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def preset(**defaults: Any) -> Callable[[type[T]], type[T]]:
    """Class decorator, below `Family.register`: new defaults for inherited config fields, all else as it was.

    Raises TypeError on a name that is no field of the base, so that a preset cannot set what nobody reads, and above
    `Family.register`, where it would come too late.
    """

    def decorate(cls: type[T]) -> type[T]:
        if "__dataclass_fields__" in vars(cls):
            raise TypeError(f"{cls.__name__} is registered already: preset belongs below Family.register")
        inherited = {f.name: f for f in dataclasses.fields(cls)}  # pyrefly: ignore
        for name, value in defaults.items():
            if name not in inherited:
                raise TypeError(f"{cls.__name__}: no field {name!r}; there are {', '.join(inherited)}")
            old = inherited[name]
            setattr(cls, name, dataclasses.field(default=value, metadata=old.metadata))
            cls.__annotations__[name] = old.type
        return cls

    return decorate
