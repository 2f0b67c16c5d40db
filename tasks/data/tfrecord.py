"""Images in TFRecord files, as tensorflow_datasets stores them.

A file is a row of records: length (uint64), its checksum, content, its checksum; little-endian. A checksum is the
CRC-32C of the bytes, turned right by 15 bits, plus 0xa282ead8. The content is a `tf.train.Example`. Sources:
TensorFlow's guide "TFRecords format details"; RFC 3720 B.4 for CRC-32C.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from plasticity.errors import UserError
from tasks.data import memory, tf_example

POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
MASK = 0xA282EAD8
#: Records that are checked at once.
BLOCK = 2048


def read_pair(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `[n, height, width(, 3)]` and labels `[n]`. Raises `UserError` if the file holds anything else."""
    return tf_example.read_pair(records(path), path)


def records(path: Path) -> list[bytes]:
    """The contents of a TFRecord file, their checksums checked."""
    memory.require(path.stat().st_size, str(path))
    content = path.read_bytes()
    heads, found, sums = [], [], []
    at = 0
    while at < len(content):
        head, at = content[at : at + 12], at + 12
        size = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else 0
        if at + size + 4 > len(content):
            # A damaged length looks like a short file, and so does a file of another kind.
            damaged = len(head) == 12 and _wrong([head[:8]], [head[8:]]).any()
            fault = "is damaged, or no TFRecord file: the checksum of the head of" if damaged else "is truncated within"
            raise UserError(f"{path} {fault} record {len(found)}")
        heads.append(head)
        found.append(content[at : at + size])
        at += size + 4
        sums.append(content[at - 4 : at])
    for start in range(0, len(found), BLOCK):
        part = slice(start, start + BLOCK)
        wrong = _wrong([h[:8] for h in heads[part]], [h[8:] for h in heads[part]]) | _wrong(found[part], sums[part])
        if wrong.any():
            raise UserError(f"{path} is damaged: a checksum of record {start + int(np.argmax(wrong))} is wrong")
    return found


def _wrong(blocks: Sequence[bytes], sums: Sequence[bytes]) -> np.ndarray:
    return masked(blocks) != np.frombuffer(b"".join(sums), "<u4")


def masked(blocks: Sequence[bytes]) -> np.ndarray:
    """The checksums of some blocks of bytes, as TFRecord files store them: uint32 `[blocks]`."""
    crc = crc32c(blocks)
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(MASK)


def crc32c(blocks: Sequence[bytes]) -> np.ndarray:
    """CRC-32C of each block, uint32 `[blocks]`: byte by byte, but for all blocks at once."""
    sizes = np.array([len(block) for block in blocks])
    order = np.argsort(-sizes, kind="stable")
    longest = int(sizes.max(initial=0))
    # Columns are blocks, the longest first, so that byte i of all that have one is a contiguous stretch.
    padded = np.zeros((longest, len(blocks)), np.uint8)
    for column, block in enumerate(order):
        padded[: sizes[block], column] = np.frombuffer(blocks[block], np.uint8)
    there = np.searchsorted(-sizes[order], -np.arange(longest), side="left")
    crc, table = np.full(len(blocks), 0xFFFFFFFF, np.uint32), _table()
    for i, count in enumerate(there):
        part = crc[:count]
        crc[:count] = table[(part ^ padded[i, :count]) & np.uint32(0xFF)] ^ (part >> np.uint32(8))
    found = np.empty_like(crc)
    found[order] = ~crc
    return found


@lru_cache(maxsize=1)
def _table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> np.uint32(1)) ^ np.uint32(POLYNOMIAL), table >> np.uint32(1))
    return table
