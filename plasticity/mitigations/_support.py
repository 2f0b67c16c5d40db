"""The range of target values that a categorical head for numbers covers. Not a mitigation."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from plasticity.errors import UserError
from plasticity.heads import Head, Regression, Softmax


class HasSupport(Protocol):
    name: ClassVar[str]

    @property
    def low(self) -> float | None: ...

    @property
    def high(self) -> float | None: ...


def check_support(member: HasSupport) -> None:
    """Raise `UserError` unless low is below high, where both are given."""
    if member.low is not None and member.high is not None and member.low >= member.high:
        raise UserError(f"{member.name}: low must be below high, got low={member.low}, high={member.high}")


def support(member: HasSupport, head: Head) -> tuple[Any, Any]:
    """The member's own bounds, or the stated target range of the linear head that it replaces, in target units.

    Raises `UserError` where there is no linear head to replace.
    """
    if not isinstance(head, Regression):
        kind = "the targets are classes" if isinstance(head, Softmax) else "the head is a distribution"
        raise UserError(f"{member.name} needs a regression task or an agent with scalar values; here {kind} already")
    return (head.low if member.low is None else member.low), (head.high if member.high is None else member.high)
