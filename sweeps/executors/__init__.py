"""Executors: ways to get groups computed. One small file each; the group is the unit of work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from plasticity.errors import unknown
from plasticity.folder import Options

#: What every executor is: given group folders (laid out by `store.save_group`), compute each; True if none failed.
#: It raises `compute.Stopped` once `options.stop` says so and everything is saved.


class Executor(Protocol):
    def __call__(self, folders: Sequence[Path], options: Options, workers: int) -> bool: ...


def get(name: str) -> Callable[[Sequence[Path], Options, int], bool]:
    """The executor called `name`; a `UserError` with the nearest match if there is none."""
    from sweeps.executors.inline import inline
    from sweeps.executors.processes import processes

    found: dict[str, Callable[[Sequence[Path], Options, int], bool]] = {"inline": inline, "processes": processes}
    if name not in found:
        raise unknown("executor", name, found)
    return found[name]
