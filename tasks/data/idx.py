"""Images and labels in idx files, plain or gzip-compressed: the format of MNIST and its relatives.

An idx file is a big-endian header - two zero bytes, the type of the values, the number of axes, the length of
each axis as int32 - and then the values. Source: LeCun, Cortes and Burges, the MNIST database. Only unsigned
bytes (type 0x08) are read, the only type that images and labels come in.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from plasticity.errors import UserError
from tasks.data import memory

MAGIC = b"\x00\x00"
GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTE = 0x08
#: Bytes of the header of images, which have three axes.
HEADER = 16


def read_pair(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images `[n, height, width]` of an idx file and the labels `[n]` of the file beside it, both uint8."""
    return read(path, axes=3, what="images"), read(labels_beside(path), axes=1, what="labels")


def labels_beside(path: Path) -> Path:
    """The labels' file of an images' file: the same name with images -> labels and idx3 -> idx1."""
    labels = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if labels == path:
        raise UserError(
            f"{path} is no file of images by its name: it must contain 'images', "
            "so that its labels can be found beside it (images -> labels, idx3 -> idx1)"
        )
    if labels.is_file():
        return labels
    # Unpacked images beside packed labels, or the reverse.
    other = labels.with_suffix("") if labels.suffix == ".gz" else labels.with_name(labels.name + ".gz")
    if other.is_file():
        return other
    raise UserError(
        f"the labels of {path.name} are missing: neither {labels.name} nor {other.name} is in {path.parent}"
    )


def read(path: Path, axes: int, what: str) -> np.ndarray:
    """The uint8 array of an idx file of `axes` axes. Raises `UserError` if the file is anything else."""
    content = _content(path)
    if len(content) < 4 or content[:2] != MAGIC:
        found = content[:4].hex(" ") or "an empty file"
        raise UserError(f"{path} is no idx file: it must begin with 00 00 08 {axes:02x} ({what}), found {found}")
    kind, count = content[2], content[3]
    if kind != UNSIGNED_BYTE:
        raise UserError(f"{path}: {what} must be unsigned bytes (idx type 0x08), found idx type 0x{kind:02x}")
    if count != axes:
        raise UserError(f"{path}: {what} must have {axes} axes, found {count}; is this a file of something else?")
    start = 4 + 4 * count
    if len(content) < start:
        raise UserError(f"{path} is truncated: the header has {start} bytes, found {len(content)}")
    shape = struct.unpack(f">{count}I", content[4:start])
    expected = start + math.prod(shape)
    if len(content) != expected:
        fault = "is truncated" if len(content) < expected else "is longer than its header says"
        raise UserError(f"{path} {fault}: expected {expected} bytes for shape {shape}, found {len(content)}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _content(path: Path) -> bytes:
    """The bytes of a file, unpacked if it is gzip; of a broken gzip file, as many as can be had."""
    memory.require(path.stat().st_size, str(path))
    content = path.read_bytes()
    if not content.startswith(GZIP_MAGIC):
        return content
    try:
        head = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(content, HEADER)
        if head.startswith(MAGIC) and len(head) == HEADER:
            memory.require(math.prod(struct.unpack(">3I", head[4:])) if head[3] == 3 else 0, str(path))
        return gzip.decompress(content)
    except EOFError:
        # Cut short: what there is, so that the caller can say how many bytes are missing.
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(content)
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged: gzip cannot unpack it ({error})") from None
