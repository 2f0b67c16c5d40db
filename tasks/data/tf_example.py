"""Images in records of tensorflow_datasets, whatever the file they stand in. Pillow, of the `data` extra, decodes them.

A record is a `tf.train.Example` as a protocol buffer: a map from names to lists of bytes or of whole numbers, of which
`image` (a PNG or JPEG file) and `label` are read. Source: the protocol buffers' encoding. tensorflow_datasets shuffles
when it writes, so the order is not that of the original files.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from plasticity.errors import UserError
from tasks.data import pictures

LABELS = ("label", "labels", "fine_label")


def read_pair(records: Sequence[bytes], path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `[n, height, width(, 3)]` and labels `[n]`. Raises `UserError` if the records hold anything else."""
    files, labels = [], []
    for i, record in enumerate(records):
        try:
            features = example(record)
            label = next(features[name] for name in LABELS if name in features)
            files.append(features["image"][0])
            labels.append(int(label[0]))
        except (LookupError, ValueError, TypeError, StopIteration, struct.error):
            raise UserError(f"{path}: record {i} is no example with an image and a label") from None
    return pictures.decode(files, str(path)), np.array(labels, np.int64)


def example(record: bytes) -> dict[str, list]:
    """The features of a serialised `tf.train.Example`: name -> list of bytes or of whole numbers, without floats."""
    found: dict[str, list] = {}
    for _, features in _fields(record, 1):
        for _, entry in _fields(features, 1):
            parts = dict(_fields(entry))
            for kind, values in _fields(parts[2]):
                if kind == 1:
                    found[parts[1].decode()] = [value for _, value in _fields(values, 1)]
                elif kind == 3:
                    found[parts[1].decode()] = [n for _, value in _fields(values, 1) for n in _numbers(value)]
    return found


def _fields(message: bytes, only: int | None = None) -> Iterator[tuple[int, bytes]]:
    """The fields of a message as (number, content); a number is left as its bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        start = at
        if kind == 0:
            _, at = _varint(message, at)
        elif kind == 2:
            size, start = _varint(message, at)
            at = start + size
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        if at > len(message):
            raise ValueError("a field that is longer than its message")
        if only is None or number == only:
            yield number, message[start:at]


def _numbers(content: bytes) -> Iterator[int]:
    at = 0
    while at < len(content):
        value, at = _varint(content, at)
        yield value - (1 << 64) if value >> 63 else value


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
