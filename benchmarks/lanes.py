"""How many runs a group: updates/s a run and in total, next to a plain PyTorch loop, one run at a time.

python -m benchmarks.lanes [pairs]
"""

from __future__ import annotations

import sys

from benchmarks.common import SMALL, STUDY, Training, best_torch, machine, pairs, report, save

LANES = (1, 8, 32, 128)


def main(count: int = 3) -> None:
    origin, rows = machine(), []
    for work in (SMALL, STUDY):
        torch = best_torch(work)
        for lanes in LANES:
            # Long groups take seconds a call: fewer updates a task, the same work between switches otherwise.
            train = Training(work, lanes, steps=400 if lanes <= 32 else 200)
            timed = pairs(torch, train, count)
            total = train.updates / timed.b
            scale = train.updates / torch.updates
            rows.append(
                {
                    "network": str(work),
                    "runs a group": lanes,
                    "updates/s a run": total / lanes,
                    "updates/s in total": total,
                    "PyTorch updates/s": torch.updates / timed.a,
                    "PyTorch threads": torch.threads,
                    "times PyTorch": timed.ratio * scale,
                    "lowest": timed.low * scale,
                    "highest": timed.high * scale,
                    "first call, s": train.first_call,
                }
            )
            print(rows[-1], flush=True)
            save("lanes", origin, rows)
    report("lanes", origin, rows)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
