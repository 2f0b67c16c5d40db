"""The progress bar of long work, and the stop flag that Ctrl-C and SIGTERM set."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text


class Bar(NamedTuple):
    """advance: tell of so much more work done. say: show a text beside the bar."""

    advance: Callable[[int], None]
    say: Callable[[str], None]


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} {self.unit}/s" if task.speed else "compiling")


@contextlib.contextmanager
def bar(console: Console, label: str, total: int, unit: str = "updates") -> Iterator[Bar]:
    """Show progress over `total` units of work."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        _Rate(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, console=console, speed_estimate_period=30) as progress:
        task = progress.add_task(label, total=total, words="")
        yield Bar(lambda count: progress.advance(task, count), lambda words: progress.update(task, words=words))


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
