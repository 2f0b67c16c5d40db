"""The user's cache folder: what took long to decode, kept as one npz each.

`$XDG_CACHE_HOME/plasticity-suite`, or `~/.cache/plasticity-suite`. An entry belongs to one file, by its full path (and
to what is meant of it, where it holds several sets), and is used only while that file has the size and the time that
it had when it was decoded. Entries are written aside and renamed, so a half-written one is never read; a damaged one
is decoded again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from plasticity.errors import UserError
from plasticity.record import atomic
from tasks.data import npz

#: Raised when decoding gives something else than it did, so that old entries are not used.
VERSION = 1


def folder() -> Path:
    """The folder; it need not exist."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home).expanduser() / "plasticity-suite"


def decoded(
    path: Path, decode: Callable[[Path], tuple[np.ndarray, np.ndarray]], part: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Examples and labels of a file: from its entry, or from `decode(path)`, which then becomes the entry."""
    name = hashlib.sha256(f"{path.resolve()}:{part}".encode()).hexdigest()[:24]
    entry = folder() / "decoded" / f"{name}.npz"
    state = path.stat()
    stamp = np.array([VERSION, state.st_size, state.st_mtime_ns])
    try:
        if entry.is_file() and np.array_equal(npz.arrays(entry, ["stamp"])[0], stamp):
            images, labels = npz.arrays(entry, ["x", "y"])
            return images, labels
    except UserError:
        pass
    images, labels = decode(path)
    try:
        with atomic(entry) as aside, open(aside, "wb") as file:
            np.savez(file, x=images, y=labels, stamp=stamp)
    except UserError:
        pass  # A full disk or a read-only home costs time at the next run, no more.
    return images, labels
