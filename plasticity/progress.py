"""The progress bar of long work, and the stop flag that Ctrl-C and SIGTERM set."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} updates/s" if task.speed else "compiling")


@contextlib.contextmanager
def bar(console: Console, runs: int, updates: int) -> Iterator[Callable[[int], None]]:
    """Show progress over `updates` run-updates; yields the function to call with each advance."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, speed_estimate_period=30) as progress:
        task = progress.add_task(f"{runs} runs", total=updates)
        yield lambda count: progress.advance(task, count)


@contextlib.contextmanager
def stop_flag(console: Console) -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a flag that is polled between chunks; a second one interrupts at once."""
    stopped = False

    def handle(number: int, frame: object) -> None:
        nonlocal stopped
        if stopped:
            raise KeyboardInterrupt
        stopped = True
        console.print("\nstopping after this chunk; everything computed is saved (again to stop at once)")

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
