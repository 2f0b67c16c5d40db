"""What the default measuring schedule costs: `Measure()` against `Measure(points="off")`.

python -m benchmarks.diagnostics [pairs]
"""

from __future__ import annotations

import sys

from benchmarks.common import STUDY, Training, machine, pairs, report, save


def main(count: int = 5) -> None:
    origin, rows = machine(), []
    for steps in (400, 1000):
        on, off = (Training(STUDY, 8, steps, points) for points in ("dense", "off"))
        timed = pairs(on, off, count)
        rows.append(
            {
                "network": str(STUDY),
                "updates a task": steps,
                "runs a group": 8,
                "s a task, measured": timed.a,
                "s a task, not": timed.b,
                "share of run time, %": 100 * (1 - 1 / timed.ratio),
                "lowest": 100 * (1 - 1 / timed.low),
                "highest": 100 * (1 - 1 / timed.high),
            }
        )
        print(rows[-1], flush=True)
        save("diagnostics", origin, rows)
    report("diagnostics", origin, rows)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
