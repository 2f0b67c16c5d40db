"""What the benchmarks share: workloads, compiled groups, the PyTorch loop to compare with, pairs, and results."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"


class Workload(NamedTuple):
    """A ReLU network of `depth` hidden layers of `width` on `inputs` pixels, Adam, `batch` examples an update."""

    width: int
    batch: int
    pool: int = 1
    depth: int = 2

    @property
    def inputs(self) -> int:
        return (28 // self.pool) ** 2

    @property
    def sizes(self) -> list[int]:
        return [self.inputs, *[self.width] * self.depth, 10]

    @property
    def flops(self) -> int:
        """Of the matrix products of one update: forward, gradient of kernels, gradient of inputs but the first."""
        products = [a * b for a, b in zip(self.sizes[:-1], self.sizes[1:], strict=True)]
        return 2 * self.batch * (3 * sum(products) - products[0])

    def __str__(self) -> str:
        return "-".join(map(str, self.sizes)) + f" batch {self.batch}"


SMALL = Workload(100, 16)
STUDY = Workload(100, 100, pool=2)
LARGE = Workload(512, 128)


class Lanes:
    """A group of `lanes` runs, compiled; calling it trains all of them for one task."""

    def __init__(
        self, task: str, network: str, optimizer: str, lanes: int, points: str = "off", mitigations: str = "none"
    ) -> None:
        from sweeps import program
        from sweeps.grouping import groups_of
        from sweeps.run import Run
        from tasks.measure import Measure
        from tasks.train import chunks

        self.program = program
        measure = Measure(points=points, ranks_every=0 if points == "off" else 1)
        runs = [Run.of(task, network, optimizer, mitigations, seed, measure=measure) for seed in range(lanes)]
        (self.group,) = groups_of(runs, lanes)
        stream = self.group.first.task
        self.updates = lanes * stream.steps
        self.data = stream.load()
        self.state = program.begin(self.group, self.data)
        ((self.span, self.chunk),) = chunks(stream.steps, measure, stream.steps)
        self.task = 0
        start = time.perf_counter()
        self()
        self.first_call = time.perf_counter() - start
        self()

    def __call__(self) -> None:
        import jax

        arguments = (self.group, self.span, self.state, self.task, self.chunk, self.data)
        self.state, record = self.program.advance(*arguments)
        jax.block_until_ready((self.state, record))
        self.task += 1


class Training(Lanes):
    """Runs of random-label memorisation with Adam."""

    def __init__(
        self, work: Workload, lanes: int, steps: int = 400, points: str = "off", mitigations: str = "none"
    ) -> None:
        task = f"label_reset(steps={steps}, num_tasks=1000, batch_size={work.batch}, pool={work.pool})"
        super().__init__(task, f"mlp({work.width}, {work.depth})", "adam", lanes, points, mitigations)


class TorchLoop:
    """The same training as one would write it in PyTorch, one run; calling it makes `updates` updates.

    In PyTorch's favour the images are normalised before the loop, where the suite does it on the fly.
    """

    def __init__(self, work: Workload, updates: int, threads: int, fused: bool = False) -> None:
        import torch

        self.torch, self.updates, self.threads, self.batch = torch, updates, threads, work.batch
        torch.manual_seed(0)
        self.x = torch.randn(2000, work.inputs)
        self.y = torch.randint(0, 10, (2000,))
        layers: list[Any] = []
        for a, b in zip(work.sizes[:-1], work.sizes[1:], strict=True):
            layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
        self.network = torch.nn.Sequential(*layers[:-1])
        self.optimizer = torch.optim.Adam(self.network.parameters(), 1e-3, fused=fused or None)
        self()

    def __call__(self) -> None:
        torch = self.torch
        torch.set_num_threads(self.threads)
        per_epoch = len(self.x) // self.batch
        total, right = torch.zeros(()), torch.zeros(())
        for step in range(self.updates):
            if step % per_epoch == 0:
                order = torch.randperm(len(self.x))
            indices = order[(step % per_epoch) * self.batch :][: self.batch]
            x, y = self.x[indices], self.y[indices]
            outputs = self.network(x)
            loss = torch.nn.functional.cross_entropy(outputs, y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
            right += (outputs.argmax(1) == y).sum()


def seconds(call: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def best_torch(work: Workload, updates: int = 200, fused: bool = False) -> TorchLoop:
    """The PyTorch loop with one thread or with the default number, whichever is faster here."""
    import torch

    loops = [TorchLoop(work, updates, threads, fused) for threads in {1, torch.get_num_threads()}]
    return min(loops, key=lambda loop: statistics.median(seconds(loop) for _ in range(3)))


class Pairs(NamedTuple):
    """Seconds of A and of B, and the ratio A / B within pairs: median, lowest, highest."""

    a: float
    b: float
    ratio: float
    low: float
    high: float


def pairs(a: Callable[[], Any], b: Callable[[], Any], count: int = 5) -> Pairs:
    """Time A and B in turns, so that what else the machine does hits both; their order alternates."""
    times: list[tuple[float, float]] = []
    for i in range(count):
        if i % 2:
            second = seconds(b)
            times.append((seconds(a), second))
        else:
            times.append((seconds(a), seconds(b)))
    ratios = [x / y for x, y in times]
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    return Pairs(*medians, statistics.median(ratios), min(ratios), max(ratios))


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    model = platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        fields = dict([part.strip() for part in line.split(":", 1)] for line in lines if ":" in line)
        model = f"{fields.get('model name', model)} (family {fields.get('cpu family')}, model {fields.get('model')})"
    versions = {name: metadata.version(name) for name in ("jax", "jaxlib", "numpy", "optax", "flax")}
    versions |= {"python": platform.python_version()}
    with contextlib.suppress(metadata.PackageNotFoundError):
        versions["torch"] = metadata.version("torch")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load_before": [round(x, 2) for x in os.getloadavg()],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def report(name: str, origin: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """Print rows as a Markdown table and write them, with `origin`, to results/NAME.json. `origin` is `machine()`,
    taken before the measurement, so that its load is that of the others."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(_cell(row.get(key, "")) for key in columns) + " |")
    print(f"load before: {origin['load_before']}, {origin['date']}", flush=True)
    save(name, origin, rows)


def save(name: str, origin: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """Write what is measured so far: also an interrupted benchmark leaves its rows."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": origin, "rows": list(rows)}, indent=1) + "\n")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
