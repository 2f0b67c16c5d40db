"""Two processes with a core each against one process with both, as `--executor processes` does; next to PyTorch.

python -m benchmarks.cores [pairs]
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.common import LARGE, SMALL, STUDY, Training, Workload, best_torch, machine, pairs, report, save

ROOT = Path(__file__).resolve().parents[1]
WORKLOADS = {"small": (SMALL, 8, 400), "study": (STUDY, 8, 400), "large": (LARGE, 1, 100)}


class Team:
    """One worker process a core, each with a compiled group; calling it trains all groups for one task at once."""

    def __init__(self, name: str) -> None:
        self.workers = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.cores", "work", name, str(core)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            for core in sorted(os.sched_getaffinity(0))
        ]
        self._wait()

    def _wait(self) -> None:
        for worker in self.workers:
            assert worker.stdout is not None
            if not worker.stdout.readline():
                raise RuntimeError("a worker died")

    def __call__(self) -> None:
        for worker in self.workers:
            assert worker.stdin is not None
            print("go", file=worker.stdin, flush=True)
        self._wait()

    def close(self) -> None:
        for worker in self.workers:
            worker.communicate()


def work(name: str, core: int) -> None:
    """A worker: train one task for every line on stdin."""
    # Before JAX starts its threads, which inherit it.
    os.sched_setaffinity(0, {core})
    train = Training(*WORKLOADS[name])
    print("ready", flush=True)
    for _ in sys.stdin:
        train()
        print("done", flush=True)


def row(name: str, count: int) -> dict[str, object]:
    settings: tuple[Workload, int, int] = WORKLOADS[name]
    one, team = Training(*settings), Team(name)
    plain, fused = best_torch(settings[0]), best_torch(settings[0], fused=True)
    cores = len(team.workers)
    both = pairs(one, team, count)
    against = pairs(plain, team, count)
    against_fused = pairs(fused, team, count)
    team.close()
    scale = cores * one.updates / plain.updates
    return {
        "network": str(settings[0]),
        "runs a group": settings[1],
        "one process, updates/s": one.updates / both.a,
        f"{cores} processes, updates/s": cores * one.updates / both.b,
        "gain": cores * both.ratio,
        "gain, range": f"{cores * both.low:.2f}-{cores * both.high:.2f}",
        "PyTorch, updates/s": plain.updates / against.a,
        "times PyTorch": scale * against.ratio,
        "range": f"{scale * against.low:.1f}-{scale * against.high:.1f}",
        "times PyTorch with fused Adam": scale * against_fused.ratio,
    }


def main(count: int = 5) -> None:
    origin, rows = machine(), []
    for name in WORKLOADS:
        rows.append(row(name, count))
        print(rows[-1], flush=True)
        save("cores", origin, rows)
    report("cores", origin, rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(sys.argv[2], int(sys.argv[3]))
    else:
        main(*map(int, sys.argv[1:]))
