"""CPU time of an update on one core: what a busy machine disturbs least.

The process is bound to one core before JAX starts; PyTorch has one thread. Time is the process's own (not the wall's),
the lowest of a few tasks.   python -m benchmarks.cpu_time [tasks]
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.common import LARGE, SMALL, STUDY, TorchLoop, Training, machine, report, save

CASES = {SMALL: (1, 8, 16, 32), STUDY: (1, 8, 16, 32), LARGE: (1,)}


def lowest(call: Callable[[], Any], count: int) -> float:
    """Lowest process time of `count` calls."""
    times = []
    for _ in range(count):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def main(count: int = 4) -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    origin, rows = machine(), []
    for work, groups in CASES.items():
        updates = 50 if work is LARGE else 200
        loops = {fused: TorchLoop(work, updates, 1, fused) for fused in (False, True)}
        plain, fused = (lowest(loop, count) / updates * 1e6 for loop in loops.values())
        settings = [(lanes, "off") for lanes in groups] + ([(8, "dense")] if work is STUDY else [])
        for lanes, points in settings:
            train = Training(work, lanes, 400 if work is STUDY else updates, points)
            us = lowest(train, count) / train.updates * 1e6
            rows.append(
                {
                    "network": str(work),
                    "measuring": points,
                    "runs a group": lanes,
                    "us an update": us,
                    "PyTorch, us": plain,
                    "PyTorch with fused Adam, us": fused,
                    "times PyTorch": plain / us,
                    "times fused": fused / us,
                    "GFLOP/s of the core": work.flops / us / 1e3,
                }
            )
            save("cpu_time", origin, rows)
            print(rows[-1], flush=True)
    report("cpu_time", origin, rows)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
