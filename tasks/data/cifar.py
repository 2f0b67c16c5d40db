"""CIFAR-10 and CIFAR-100 as they are handed out: pickled batches, and the binary version.

A batch is a dictionary: `data` uint8 `[n, 3072]`, the planes red, green, blue of 32 x 32 pixels each, and `labels`, or
`fine_labels` (which are read) and `coarse_labels`. The binary version has rows of one label byte (CIFAR-100: the
coarse, then the fine one) and the 3,072 values. Source: Krizhevsky 2009, "Learning Multiple Layers of Features from
Tiny Images".

A pickle is a program. Here it may do nothing but build dictionaries, lists, numbers, text and arrays of whole numbers:
each class that it names is replaced by a stand-in of this file or refused, so not even numpy is called by it.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from plasticity.errors import UserError
from tasks.data import memory

SIDE = 32
VALUES = 3 * SIDE * SIDE
KINDS = ("u1", "i1", "i2", "i4", "i8", "u2", "u4", "u8")
LABELS = ("labels", "fine_labels")
#: What reading raises where the bytes are not those that were written.
DAMAGED = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    OverflowError,
    MemoryError,
)


def read_pair(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `[n, 32, 32, 3]` and labels `[n]` of a pickled batch. Raises `UserError` if it is anything else."""
    memory.require(path.stat().st_size, str(path))
    try:
        with path.open("rb") as file:
            content = _Restricted(file).load()
    except _Refused as error:
        raise UserError(f"{path}: {error}") from None
    except DAMAGED as error:
        raise UserError(f"{path} is no whole pickle: it is truncated or damaged ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is no CIFAR batch: it must hold a dictionary, found {type(content).__name__}")
    batch = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    label = next((key for key in LABELS if key in batch), None)
    if "data" not in batch or label is None:
        found = ", ".join(sorted(map(str, batch))) or "nothing"
        raise UserError(f"{path} is no CIFAR batch: it must hold data and labels or fine_labels; found {found}")
    data, labels = _array(path, "data", batch["data"]), _array(path, label, batch[label])
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != VALUES:
        raise UserError(f"{path}: data must be uint8 [n, {VALUES}], found {data.dtype} of shape {data.shape}")
    return _upright(data), labels


def read_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The same of a file of the binary version; which of the two sets it is, is told by the length of its rows."""
    size = path.stat().st_size
    memory.require(size, str(path))
    # Whole files of either have 10,000 or 50,000 rows, for which only one of the two lengths fits.
    labels = next((n for n in (1, 2) if size and size % (n + VALUES) == 0), None)
    if labels is None:
        raise UserError(
            f"{path} is no whole binary CIFAR file: its size must be a multiple of {1 + VALUES} bytes (CIFAR-10) "
            f"or {2 + VALUES} (CIFAR-100), found {size}"
        )
    rows = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, labels + VALUES)
    return _upright(rows[:, labels:]), rows[:, labels - 1].copy()


def _upright(planes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(planes.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))


def _array(path: Path, key: str, value: Any) -> np.ndarray:
    try:
        if isinstance(value, _Array):
            return value.array()
        if isinstance(value, list) and all(type(number) is int for number in value):
            return np.array(value, np.int64)
    except DAMAGED as error:
        raise UserError(f"{path}: {key} is damaged ({error})") from None
    raise UserError(f"{path}: {key} must be an array or a list of whole numbers, found {type(value).__name__}")


class _Refused(Exception):
    """The pickle is whole, but holds what no batch needs."""


class _Kind:
    """Stands for `numpy.dtype`: keeps the kind, one of `KINDS`, and the order of its bytes."""

    def __init__(self, kind: Any, *_: Any) -> None:
        self.kind, self.order = kind.decode("latin1") if isinstance(kind, bytes) else kind, "<"
        if self.kind not in KINDS:
            raise _Refused(f"arrays must be of whole numbers, found numpy type {kind!r}")

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        self.order = order if order in ("<", ">") else "<"


class _Array:
    """Stands for `numpy.ndarray`: keeps shape, kind and bytes, and makes an array of them only in `array`."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state[-4:]

    def array(self) -> np.ndarray:
        shape, kind, fortran, raw = self.state
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        flat = np.frombuffer(raw, np.dtype(kind.order + kind.kind))
        return flat.reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _frombuffer(raw: Any, kind: _Kind, shape: Any, order: str) -> _Array:
    array = _Array()
    array.state = shape, kind, order == "F", raw
    return array


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Stands for `_codecs.encode`, with which Python 3 writes bytes in old protocols."""
    return text.encode("latin1")


#: All that a batch may name, by old and new names of numpy's modules.
STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _encode,
}


class _Restricted(pickle.Unpickler):
    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in STAND_INS:
            raise _Refused(
                f"refused, and nothing of it was run: the pickle names {module}.{name}, which no CIFAR batch needs"
            )
        return STAND_INS[module, name]
