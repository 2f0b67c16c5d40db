"""What a step costs with each mitigation, as a multiple of a step without: one run, and 32 runs in a group.

python -m benchmarks.mitigations [pairs] [name ...]

The work is the study's network, 196-100-100-10 at batch 100. Each line is a pair of programs that take turns, so what
else the machine does hits both. The first lines are the pair with ReDo, and resets that are never due: they should cost
nothing, under `vmap` too. A task has 50 updates, so what happens at a switch is spread over as many.
"""

from __future__ import annotations

import dataclasses
import sys

from benchmarks.common import STUDY, Training, machine, pairs, report, save
from plasticity import spec
from plasticity.errors import UserError
from plasticity.mitigations import mitigations

STEPS = 50
LANES = (1, 32)
COMBINATION = "layer_norm+l2+redo"
#: Fields that say when something is due.
PERIODS = ("every", "maturity", "pool_every")


def idle(name: str) -> str:
    """The member with periods of updates so long that nothing is ever due; empty if it has none."""
    cls = mitigations.get(name)
    periods = {f.name: 10**8 for f in dataclasses.fields(cls) if f.name in PERIODS}  # pyrefly: ignore
    return spec.to_text(cls(**periods)) if periods and cls.resets_units else ""


def main(count: int = 2, *names: str) -> None:
    origin, rows = machine(), []
    chosen = list(names) or [name for name in mitigations.members() if name != "relu"]
    texts = [COMBINATION, *filter(None, map(idle, chosen)), *chosen]
    plain = {lanes: Training(STUDY, lanes, STEPS) for lanes in LANES}
    for text in texts:
        row = {"mitigation": text}
        for lanes in LANES:
            try:
                training = Training(STUDY, lanes, STEPS, mitigations=text)
            except UserError:
                row["note"] = "not on this task"
                break
            # A single run's task is over in a moment: more pairs.
            timed = pairs(training, plain[lanes], 5 * count if lanes == 1 else count)
            row |= {f"{lanes} runs": timed.ratio, f"{lanes} lowest": timed.low, f"{lanes} highest": timed.high}
        rows.append(row)
        print(row, flush=True)
        save("mitigations", origin, rows)
    report("mitigations", origin, rows)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:])
