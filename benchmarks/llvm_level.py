"""What LLVM's optimisation of a group's programs costs to compile and gains in running: XLA's level 3 against 1.

CPU time of the process, bound to one core; compiled anew each time.   python -m benchmarks.llvm_level [tasks]
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from benchmarks.common import Lanes, machine, report

#: Task, network, optimiser, runs, measuring, mitigations.
CASES = (
    ("label_reset(steps=400, batch_size=16, num_tasks=99, pool=2)", "mlp(100)", "adam", 16, "dense", "l2_init(1e-3)"),
    ("label_reset(steps=30, batch_size=128, num_tasks=99)", "mlp(512)", "adam", 4, "end", "layer_norm+redo"),
    ("bit_flipping(steps=10000, num_tasks=99)", "mlp(5, 1)", "sgd(0.01)", 8, "end", "none"),
    ("bit_flipping(steps=5000, num_tasks=99)", "mlp(16, 1)", "sgd(0.01)", 8, "end", "continual_backprop"),
)


def timed(case: tuple[Any, ...], level: int, tasks: int) -> dict[str, float]:
    """CPU seconds of tracing and compiling both programs of a group, and of a task: the lowest of some."""
    import jax

    from sweeps import program

    program._compiler_options = lambda: {"xla_backend_optimization_level": level}
    for cached in (program._start, program._advance):
        cached.cache_clear()
    jax.clear_caches()
    begun = time.process_time()
    group = Lanes(*case)
    first = time.process_time() - begun
    times = []
    for _ in range(tasks):
        begun = time.process_time()
        group()
        times.append(time.process_time() - begun)
    # It has run two tasks by then.
    return {"trace and compile, s": first - 2 * min(times), "a task, s": min(times)}


def main(tasks: int = 5) -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    import jax

    jax.config.update("jax_enable_compilation_cache", False)
    origin, rows = machine(), []
    for case in CASES:
        for level in (3, 1):
            what = {"task": case[0], "network": case[1], "mitigations": case[5], "runs": case[3], "level": level}
            rows.append({**what, **timed(case, level, tasks)})
    report("llvm_level", origin, rows)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
