"""Claims as data: a statement, and the test that decides it from a study's records.

A test is a tree. Its leaves are linear contrasts of run outcomes, paired by seed; its inner nodes are `AllOf` and
`AnyOf`. A contrast is decided by its interval, never by an expectation written down beforehand:

    reproduced      the whole interval lies on the claimed side of `margin`
    not reproduced  the whole interval lies on the other side
    undecided       the interval contains `margin`, or runs are missing

`AllOf` and `AnyOf` combine the three values as Kleene's logic does. `sweeps` writes claims into study.json,
`analysis` reads and decides them; neither imports the other, both import this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from plasticity.errors import UserError

Verdict = Literal["reproduced", "not reproduced", "undecided"]


@dataclass(frozen=True)
class Outcome:
    """A number per run: the mean of `metric` over a window of tasks, for the runs that match `task` and `mitigations`.

    task: key of the task in the study. mitigations: canonical spec text. metric: name of a task-level metric.
    first / last: the window is the first or the last so many tasks; both None means all tasks.
    """

    task: str
    mitigations: str
    metric: str = "end_score"
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True)
class Contrast:
    """sum of weight * outcome, one value per seed, claimed to be `greater` or `less` than `margin`.

    name: what the number is, in words, for tables and figures.
    """

    name: str
    terms: tuple[tuple[float, Outcome], ...]
    claimed: Literal["greater", "less"] = "greater"
    margin: float = 0.0


@dataclass(frozen=True)
class AllOf:
    """Holds if every part holds."""

    parts: tuple[Test, ...]
    name: str = ""


@dataclass(frozen=True)
class AnyOf:
    """Holds if at least one part holds. Intervals of the parts are widened (Bonferroni) for the choice among them."""

    parts: tuple[Test, ...]
    name: str = ""


Test = Contrast | AllOf | AnyOf


@dataclass(frozen=True)
class Claim:
    """id: as in the literature's table of claims, e.g. `C10`. source: author, year, identifier."""

    id: str
    statement: str
    source: str
    test: Test


def to_json(item: Claim | Test | Outcome) -> dict[str, Any]:
    """A claim or a part of it as plain JSON data; `from_json` reads it back equal."""
    kind = type(item).__name__
    data: dict[str, Any] = {"kind": kind}
    for name, value in vars(item).items():
        if name == "parts":
            value = [to_json(part) for part in value]
        elif name == "terms":
            value = [[weight, to_json(outcome)] for weight, outcome in value]
        elif name == "test":
            value = to_json(value)
        data[name] = value
    return data


def from_json(data: Mapping[str, Any]) -> Any:
    """The claim, test or outcome written by `to_json`. Raises `UserError` on anything else."""
    kinds = {cls.__name__: cls for cls in (Claim, AllOf, AnyOf, Contrast, Outcome)}
    try:
        rest = {k: v for k, v in data.items() if k != "kind"}
        cls = kinds[data["kind"]]
        if "parts" in rest:
            rest["parts"] = tuple(from_json(part) for part in rest["parts"])
        if "terms" in rest:
            rest["terms"] = tuple((float(weight), from_json(outcome)) for weight, outcome in rest["terms"])
        if "test" in rest:
            rest["test"] = from_json(rest["test"])
        return cls(**rest)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"not a claim: {error!r} in {data!r}") from None
