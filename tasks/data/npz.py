"""Images and labels in an npz file: keys x and y, x_train and y_train (Keras), or images and labels.

Images are uint8 `[n, height, width]` (grey) or `[n, height, width, channels]`; labels are whole numbers `[n]`
or `[n, 1]` (Keras's CIFAR). Where x_train stands beside x_test, the test examples follow the training ones. Arrays of
objects are never read: they are pickles, and a pickle can run any code.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from plasticity.errors import UserError
from tasks.data import memory

MAGIC = b"PK"
KEYS = (("x", "y"), ("x_train", "y_train"), ("images", "labels"))
TEST = ("x_test", "y_test")
#: What reading a file raises that is not what was written.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError)


def read_pair(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of an npz file, as they are in it. Raises `UserError` if it cannot be read."""
    found = names(path)
    pair = next((pair for pair in KEYS if set(pair) <= set(found)), None)
    if pair is None:
        wanted = ", ".join(" and ".join(pair) for pair in KEYS)
        raise UserError(f"{path} must hold one of the pairs {wanted}; found {', '.join(sorted(found)) or 'nothing'}")
    images, labels = arrays(path, pair)
    if pair[0] != "x_train" or not set(TEST) <= set(found):
        return images, labels
    more, further = arrays(path, TEST)
    if images.shape[1:] != more.shape[1:] or images.dtype != more.dtype or labels.shape[1:] != further.shape[1:]:
        raise UserError(f"{path}: x_train {images.shape} and x_test {more.shape} are not of one kind")
    return np.concatenate([images, more]), np.concatenate([labels, further])


def names(path: Path) -> list[str]:
    """The names of the arrays in an npz file."""
    try:
        with zipfile.ZipFile(path) as file:
            return [name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy")]
    except DAMAGED as error:
        raise UserError(f"{path} is no whole npz file: it is truncated or damaged ({error})") from None


def arrays(path: Path, keys: Sequence[str]) -> list[np.ndarray]:
    """The arrays of these names, if they fit into memory."""
    try:
        with zipfile.ZipFile(path) as file:
            memory.require(sum(file.getinfo(f"{key}.npy").file_size for key in keys), str(path))
        # Opened here, because np.load leaves a file open that is no zip.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            return [_array(path, found, key) for key in keys]
    except KeyError as error:
        raise UserError(f"{path} has no array {error}") from None
    except DAMAGED as error:
        raise UserError(f"{path} is no whole npz file: it is truncated or damaged ({error})") from None


def _array(path: Path, found: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    try:
        return found[key]
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise UserError(f"{path}: {key} is an array of objects, which is never read; store plain numbers") from None
        raise UserError(f"{path}: {key} cannot be read: it is truncated or damaged ({error})") from None
