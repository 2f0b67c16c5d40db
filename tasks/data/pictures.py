"""Many small PNG or JPEG files in memory to one array. Decoded by Pillow, the `data` extra.

All must have one size. If any is in colour, all become RGB; otherwise they stay grey. A transparency is dropped.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from plasticity.errors import UserError
from tasks.data import memory
from tasks.data.optional import need

GREY = ("1", "L", "LA")


def decode(files: Sequence[bytes], where: str) -> np.ndarray:
    """uint8 `[n, height, width]` (grey) or `[n, height, width, 3]`. `where` begins the messages of `UserError`."""
    pillow = need("PIL.Image", f"{where} holds compressed images: reading them")
    if not files:
        raise UserError(f"{where} has no images")
    # Only the heads are read here, so that a wrong or huge set is refused before it is decoded.
    modes, sizes = zip(*(_head(pillow, file, i, where) for i, file in enumerate(files)), strict=True)
    if len(set(sizes)) > 1:
        counts = ", ".join(f"{h} x {w} ({n})" for (w, h), n in Counter(sizes).most_common(4))
        raise UserError(f"{where}: all images must have one size, found {counts}; resize them first")
    (width, height), colour = sizes[0], not set(modes) <= set(GREY)
    shape = (len(files), height, width, 3) if colour else (len(files), height, width)
    memory.require(int(np.prod(shape)), where)
    images = np.empty(shape, np.uint8)
    for i, file in enumerate(files):
        try:
            with pillow.open(io.BytesIO(file)) as picture:
                images[i] = np.asarray(picture.convert("RGB" if colour else "L"))
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for damaged content
            raise UserError(f"{where}: image {i} is damaged ({error})") from None
    return images


def _head(pillow: Any, file: bytes, i: int, where: str) -> tuple[str, tuple[int, int]]:
    try:
        with pillow.open(io.BytesIO(file)) as picture:
            return picture.mode, picture.size
    except (OSError, SyntaxError, ValueError, TypeError, pillow.DecompressionBombError) as error:
        raise UserError(f"{where}: image {i} is no picture that Pillow can read ({error})") from None
