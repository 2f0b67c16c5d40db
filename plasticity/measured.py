"""What the suite has measured of each mitigation's effect: numbers of its study `all_mitigations`.

`python -m analysis effects STUDY` writes the file. An effect is the gain in the late end-of-task score over the same
network without the mitigation, paired by seed, with its interval.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

from plasticity.errors import UserError

FILE = "measured.json"


@dataclass(frozen=True)
class Effect:
    """mitigation: name. spec: with its fields. task: what it was tried on. beside: the mitigations on both sides, as
    spec text. gain, low, high: in score, 0 to 1. n: seeds. study: name and scale."""

    mitigation: str
    spec: str
    task: str
    beside: str
    gain: float
    low: float
    high: float
    n: int
    study: str

    def __str__(self) -> str:
        return f"{self.task} {self.gain:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


@lru_cache
def effects() -> tuple[Effect, ...]:
    """All effects that were measured, as the file of this installation has them."""
    path = resources.files("plasticity") / FILE
    if not path.is_file():
        return ()
    return tuple(Effect(**entry) for entry in json.loads(path.read_text()))


def of(mitigation: str, beside: str = "none") -> tuple[Effect, ...]:
    """The effects of one mitigation, added to the mitigations `beside`."""
    return tuple(e for e in effects() if e.mitigation == mitigation and e.beside == beside)


def write(path: Path, found: list[Effect]) -> None:
    """Write effects as a JSON file. Raises `UserError` where there are none."""
    from plasticity.record import atomic

    if not found:
        raise UserError("no effect of a single mitigation is recorded there: run a study with no mitigation as an arm")
    with atomic(path) as aside:
        aside.write_text(json.dumps([asdict(effect) for effect in found], indent=1) + "\n")
