"""Configs are frozen pytree dataclasses whose fields are *traced* or *static*.

A traced field (a strength) is a pytree leaf: it can be batched by `vmap`, and changing it never
recompiles. A static field (a period, a size, a choice) is part of the tree structure. Two configs can
therefore share one compiled program exactly when `jax.tree.structure(a) == jax.tree.structure(b)`.

Field constraints (`ge`, `le`, `gt`, `choices`) are checked when a config is built from Python numbers, so
an impossible value is an error before any compute is spent; arrays and tracers pass unchecked.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from typing import TYPE_CHECKING, Any, TypeVar

import jax

from plasticity.errors import UserError, unknown

T = TypeVar("T")


def traced(
    default: float,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    absent: float | None = None,
    positional: bool = False,
    unit: str = "",
    help: str = "",
) -> Any:
    """A strength: a pytree leaf that may be swept inside one compiled program.

    absent: the value that means that something is not there at all. Exactly this number is part of the tree structure,
    so that what it would need (a velocity, say) is not compiled in.
    """
    meta = _meta(float, ge=ge, gt=gt, le=le, absent=absent, positional=positional, unit=unit, help=help)
    return dataclasses.field(default=default, metadata={**meta, "static": False})


def static(
    default: Any,
    *,
    type: type | None = None,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    choices: tuple[str, ...] = (),
    positional: bool = False,
    unit: str = "",
    help: str = "",
) -> Any:
    """A size, period or choice: part of the tree structure, so a change means another compiled program.

    `type` defaults to that of `default`; give it where the default is None.
    """
    kind = type or default.__class__
    meta = _meta(kind, ge=ge, gt=gt, le=le, choices=choices, positional=positional, unit=unit, help=help)
    return dataclasses.field(default=default, metadata={**meta, "static": True})


def _meta(kind: type, **rest: Any) -> dict[str, Any]:
    return {"type": kind, **rest}


class Config:
    """Base of every config: checks the declared ranges, then calls `validate` for what spans several fields."""

    if TYPE_CHECKING:
        # Subclasses become dataclasses through their family's decorator, which a type checker cannot follow.
        def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):  # pyrefly: ignore
            _check(type(self), f, getattr(self, f.name))
        self.validate()

    def validate(self) -> None:
        """Raise `UserError` for a combination of values that is impossible. Leaves may be tracers."""


def config(cls: type[T]) -> type[T]:
    """Make a `Config` subclass a frozen dataclass and register it as a pytree."""
    cls = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(cls)  # pyrefly: ignore
    leaves = [f.name for f in fields if not f.metadata.get("static", True)]
    rest = [f.name for f in fields if f.metadata.get("static", True)]

    absent = {f.name: f.metadata["absent"] for f in fields if f.metadata.get("absent") is not None}

    def flatten(item: Any) -> tuple[list[Any], Any]:
        # A float: an int there is the axis of a vmap.
        missing = tuple(n for n, x in absent.items() if isinstance(getattr(item, n), float) and getattr(item, n) == x)
        keyed = [(jax.tree_util.GetAttrKey(name), getattr(item, name)) for name in leaves if name not in missing]
        return keyed, (tuple(getattr(item, name) for name in rest), missing)

    def unflatten(aux: Any, children: Any) -> Any:
        # Past __init__ and its checks: leaves may be tracers, batches of values, or the axes of a vmap.
        values, missing = aux
        present = [name for name in leaves if name not in missing]
        item = object.__new__(cls)
        for name, value in (
            *zip(rest, values, strict=True),
            *zip(present, children, strict=True),
            *((name, absent[name]) for name in missing),
        ):
            object.__setattr__(item, name, value)
        return item

    jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
    return cls


def _check(cls: type, f: dataclasses.Field, value: Any) -> None:
    """Raise `UserError` if a plain Python value is outside the field's stated range."""
    meta, where = f.metadata, f"{getattr(cls, 'name', cls.__name__)}: {f.name}"
    if choices := meta.get("choices"):
        if value not in choices:
            raise unknown(f"value of {where}", str(value), choices)
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not math.isfinite(value):
        raise UserError(f"{where} must be a finite number, got {value}")
    for key, holds in (("ge", operator.ge), ("gt", operator.gt), ("le", operator.le)):
        bound = meta.get(key)
        if bound is not None and not holds(value, bound):
            raise UserError(f"{where} must be {allowed_range(meta)}, got {value}")


def allowed_range(meta: Any) -> str:
    """The range of a numeric field in words: `>= 0 and <= 1`, or the empty string if it is free."""
    parts = [f"{s} {meta[k]}" for k, s in (("ge", ">="), ("gt", ">"), ("le", "<=")) if meta.get(k) is not None]
    return " and ".join(parts)
