"""Time before the first update: import of the library, compilation of one program cold and from the persistent cache.

Every number is that of fresh processes.   python -m benchmarks.startup [repeats]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import STUDY, Training, machine, report

ROOT = Path(__file__).resolve().parents[1]
TIMED = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
IMPORTS = {
    "import jax": "import jax",
    "import plasticity": "import plasticity",
    "import plasticity, with diagnose": "import plasticity; plasticity.diagnose",
    "import plasticity, one mitigation built": "import plasticity; plasticity.mitigation('layer_norm+redo')",
}


def fresh(*arguments: str, **environment: str) -> float:
    """The last number that a fresh Python prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    return float(done.stdout.split()[-1])


def main(repeats: int = 3) -> None:
    origin, rows = machine(), []
    for name, code in IMPORTS.items():
        times = [fresh("-c", TIMED.format(code)) for _ in range(repeats)]
        rows.append({"what": name, "seconds": statistics.median(times), "lowest": min(times), "highest": max(times)})
    for points in ("off", "dense"):
        cold, cached = [], []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as folder:
                cache = {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
                call = ("-m", "benchmarks.startup", "first-call", points)
                cold.append(fresh(*call, **cache))
                cached.append(fresh(*call, **cache))
        for state, times in (("cold", cold), ("from the cache", cached)):
            rows.append(
                {
                    "what": f"first task of a program (trace, compile, run), measuring {points}, {state}",
                    "seconds": statistics.median(times),
                    "lowest": min(times),
                    "highest": max(times),
                }
            )
    report("startup", origin, rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["first-call"]:
        # Eight runs and a short task, so that the run itself is a small part.
        print(Training(STUDY, 8, 32, sys.argv[2]).first_call)
    else:
        main(*map(int, sys.argv[1:]))
