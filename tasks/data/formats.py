"""Which reader a file of images needs: by its name for formats that begin with anything, else by its first bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from plasticity.errors import UserError
from tasks.data import array_record, cache, cifar, idx, jpeg_pack, npz, tables, tfrecord

Pair = tuple[np.ndarray, np.ndarray]
Reader = Callable[[Path], Pair]


class Format(NamedTuple):
    """`begins`: the first bytes, of which one is enough; empty if only the name tells. `slow`: the result is kept."""

    name: str
    begins: tuple[bytes, ...]
    read_pair: Reader
    slow: bool = False


#: Pickle protocols 2 to 5; CIFAR's own batches are of protocol 2.
PICKLE = tuple(bytes([0x80, protocol]) for protocol in (2, 3, 4, 5))
#: In this order: by the file's name ...
BY_NAME = {
    "*.bin": Format("binary CIFAR", (), cifar.read_binary),
    "*.tfrecord*": Format("TFRecord", (), tfrecord.read_pair, slow=True),
    "*.array_record*": Format("array_record", (), array_record.read_pair, slow=True),
}
#: ... and by its content.
BY_CONTENT = (
    Format("idx", (idx.MAGIC,), idx.read_pair),
    Format("packed idx", (idx.GZIP_MAGIC,), idx.read_pair),
    Format("npz", (npz.MAGIC,), npz.read_pair),
    Format("CIFAR batch", PICKLE, cifar.read_pair),
    Format("parquet", (tables.PARQUET,), tables.read_pair, slow=True),
    Format("Arrow", (tables.ARROW_FILE, tables.ARROW_STREAM), tables.read_pair, slow=True),
)
PACK = Format("JPEG pack", (npz.MAGIC,), jpeg_pack.read_pair, slow=True)


def of(path: Path) -> Format | None:
    """The format of a file; None if it is in none of them, or no file."""
    if not path.is_file():
        return None
    for pattern, found in BY_NAME.items():
        if path.match(pattern):
            return found
    with path.open("rb") as file:
        begins = file.read(8)
    found = next((f for f in BY_CONTENT if begins.startswith(f.begins)), None)
    if found is not None and found.name == "npz" and set(jpeg_pack.KEYS) <= set(npz.names(path)):
        return PACK
    return found


def read_pair(path: Path) -> Pair:
    """Images and labels of one file, not yet checked against each other. Raises `UserError` if it cannot be read."""
    try:
        found = of(path)
        if found is None:
            raise _unknown(path)
        return cache.decoded(path, found.read_pair) if found.slow else found.read_pair(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def _unknown(path: Path) -> UserError:
    with path.open("rb") as file:
        begins = file.read(4).hex(" ") or "nothing"
    known = ", ".join(f"{f.name} ({' or '.join(b.hex(' ') for b in f.begins[:2])})" for f in BY_CONTENT)
    names = ", ".join(f"{f.name} ({pattern})" for pattern, f in BY_NAME.items())
    return UserError(f"{path} is in no format that is read here: it begins with {begins}; allowed: {known}, {names}")
