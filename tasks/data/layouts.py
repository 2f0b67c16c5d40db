"""Folders as data sets: which files in one are its training examples, and which its test examples after them.

Each layout is the one of a library or of the data's authors, see `docs/data.md`. A folder that holds one of them
deeper down, as a root of torchvision does, stands for it. Sets in numbered parts must be complete.
"""

from __future__ import annotations

import re
from pathlib import Path

from plasticity.errors import UserError
from tasks.data import formats

#: Names of the files with training and with test examples, in the order of preference: unpacked before packed.
LAYOUTS = (
    ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"),
    ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz"),
    ("data_batch_[0-9]", "test_batch"),
    ("data_batch_[0-9].bin", "test_batch.bin"),
    ("train.bin", "test.bin"),
    ("train", "test"),
    ("train*.parquet", "test*.parquet"),
    ("*-train*.arrow", "*-test*.arrow"),
    ("*-train.tfrecord*", "*-test.tfrecord*"),
    ("*-train.array_record*", "*-test.array_record*"),
)
#: How far down a folder is searched, and how many folders are looked into at most.
DEPTH, MOST = 3, 2000
_NUMBERED = re.compile(r"(.*)-(\d{5})-of-(\d{5})")


def files(path: Path) -> tuple[Path, ...]:
    """The files of a data set, training examples first; `path` itself if it is one. `UserError` if there are none."""
    if path.is_file():
        return (path,)
    level = [path]
    for _ in range(DEPTH + 1):
        found = [folder for folder in level if split(folder)]
        if len(found) == 1:
            return _complete(found[0], split(found[0]))
        if found:
            names = ", ".join(str(folder) for folder in found[:12])
            raise UserError(f"{path} holds several data sets; name one: {names}")
        level = [sub for folder in level for sub in _entries(folder) if sub.is_dir()][:MOST]
    usable = [file.name for file in _entries(path) if "labels" not in file.name and formats.of(file) is not None]
    raise UserError(
        f"{path} is a folder; name a file in it: {', '.join(usable[:12]) or '(it has no file of images that is read)'}"
    )


def split(folder: Path) -> tuple[Path, ...]:
    """The files of the first layout that has training examples in this very folder; empty if none has."""
    for train, test in LAYOUTS:
        first = [file for file in sorted(folder.glob(train)) if file.is_file()]
        # A file called `train` is common; only CIFAR-100's is a pickled batch.
        if train == "train":
            first = [file for file in first if formats.of(file) in formats.BY_CONTENT]
        if first:
            return *first, *(file for file in sorted(folder.glob(test)) if file.is_file())
    return ()


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        return []


def _complete(folder: Path, found: tuple[Path, ...]) -> tuple[Path, ...]:
    """The files, if none of those that are numbered `i of n` lacks."""
    there: dict[str, int] = {}
    for file in found:
        if match := _NUMBERED.match(file.name):
            there[f"{match[1]}-*-of-{match[3]}"] = there.get(f"{match[1]}-*-of-{match[3]}", 0) + 1
    for name, count in there.items():
        if count != int(name[-5:]):
            raise UserError(f"{folder} is not complete: {count} of {int(name[-5:])} files {name} are there")
    return found
