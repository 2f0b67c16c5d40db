"""Data sets: the embedded one, and readers of what the user has. `for_task(task)` is what a run asks."""

from tasks.data.check import check, for_task
from tasks.data.load import load

__all__ = ["check", "for_task", "load"]
