"""Whether data fit into the memory that is free: asked before they are read.

What is free is the least of: what the system says it can give without swapping (MemAvailable of /proc/meminfo, or a
share of all there is where that file is missing), what is left of the control group's limit (containers, clusters),
and what is left of the process's own limit (ulimit -v). Linux counts; elsewhere the total is all that is known.
"""

from __future__ import annotations

import os
from pathlib import Path

from plasticity.errors import UserError

#: Copies that exist at once at the worst moment: the parts of a file, the whole on the host, the whole on the device.
COPIES = 3
GIB = 2**30


def require(size: int, what: str) -> None:
    """Raise `UserError` if `size` bytes of data cannot be held in memory while they are read."""
    free = available()
    if free is not None and COPIES * size > free:
        raise UserError(
            f"{what} does not fit into memory: {COPIES * size / GIB:.1f} GiB are needed while it is read "
            f"({COPIES} copies of {size / GIB:.1f} GiB), {free / GIB:.1f} GiB are free; use fewer or smaller examples"
        )


def available() -> int | None:
    """Bytes that this process may still take; None if nothing is known."""
    known = [size for size in (_system(), _group(), _process()) if size is not None]
    return max(0, min(known)) if known else None


def _system() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def _group() -> int | None:
    """What is left of the limit of the control group (version 2) that this process is in."""
    try:
        own = Path("/proc/self/cgroup").read_text().rpartition("0::")[2].strip().lstrip("/")
    except OSError:
        return None
    # A container sees its own group as the root.
    for folder in (Path("/sys/fs/cgroup") / own, Path("/sys/fs/cgroup")):
        try:
            limit = int((folder / "memory.max").read_text())
            return limit - int((folder / "memory.current").read_text())
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return None


def _process() -> int | None:
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return None
        return limit - int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError, ValueError):
        return None
