"""Numbers for people: as many decimals as the interval warrants, a true minus sign, no negative zero."""

from __future__ import annotations

import math
from collections.abc import Iterable

from analysis.stats import Estimate


def places(low: float, high: float, value: float = 0.0) -> int:
    """Decimals that show an interval's width, at least 2 below a width of 10, at most 4; fewer for large values.

    Without an interval the size of the value decides: 2 up to 100, 1 up to 1,000, none above. More where a limit
    would else be rounded to 0: whether an interval excludes 0 must be seen.
    """
    width = abs(high - low)
    if not math.isfinite(width) or width == 0:
        return 2 if not abs(value) >= 100 else 1 if abs(value) < 1000 else 0
    digits = max(math.ceil(-math.log10(width)), 2 if width < 10 else 0)
    while digits < 4 and any(limit != 0 and round(limit, digits) == 0 for limit in (low, high)):
        digits += 1
    return min(digits, 4)


def digits_for(values: Iterable[float]) -> int:
    """Decimals for numbers that stand together: 2 below 10, 1 below 1,000, none above."""
    most = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    return 2 if most < 10 else 1 if most < 1000 else 0


def number(value: float, decimals: int = 2, *, signed: bool = False) -> str:
    """A number with so many decimals; `n/a` if it is not finite."""
    if value is None or not math.isfinite(value):
        return "n/a"
    text = f"{abs(value):,.{decimals}f}"
    zero = not text.strip("0.,")
    return ("" if zero else "−" if value < 0 else "+" if signed else "") + text


def span(low: float, high: float, decimals: int | None = None, *, signed: bool = False) -> str:
    """An interval in brackets, by default with the decimals of `places`."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "[n/a]"
    decimals = places(low, high) if decimals is None else decimals
    return f"[{number(low, decimals, signed=signed)}, {number(high, decimals, signed=signed)}]"


def estimate(e: Estimate, *, signed: bool = False) -> str:
    """Estimate and interval with common decimals: `+0.31 [+0.25, +0.36]`."""
    return f"{number(e.value, places(e.low, e.high, e.value), signed=signed)} {span(e.low, e.high, signed=signed)}"


def plural(count: int, word: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def listed(items: list[str]) -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]
