"""Images and labels in an npz file: keys x and y, x_train and y_train (Keras), or images and labels.

Images are uint8 `[n, height, width]` (grey) or `[n, height, width, channels]`; labels are whole numbers `[n]`
or `[n, 1]` (Keras's CIFAR). Arrays of objects are never read: they are pickles, and a pickle can run any
code.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from plasticity.errors import UserError

MAGIC = b"PK"
KEYS = (("x", "y"), ("x_train", "y_train"), ("images", "labels"))


def read_pair(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of an npz file, as they are in it. Raises `UserError` if it cannot be read."""
    try:
        # Opened here, because np.load leaves a file open that is no zip.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            images, labels = _keys(path, arrays.files)
            return _array(path, arrays, images), _array(path, arrays, labels)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise UserError(f"{path} is no whole npz file: it is truncated or damaged ({error})") from None


def _keys(path: Path, found: list[str]) -> tuple[str, str]:
    for pair in KEYS:
        if set(pair) <= set(found):
            return pair
    wanted = ", ".join(" and ".join(pair) for pair in KEYS)
    raise UserError(f"{path} must hold one of the pairs {wanted}; found {', '.join(sorted(found)) or 'nothing'}")


def _array(path: Path, arrays: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    try:
        return arrays[key]
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise UserError(f"{path}: {key} is an array of objects, which is never read; store plain numbers") from None
        raise UserError(f"{path}: {key} cannot be read: it is truncated or damaged ({error})") from None
