"""Small images, and what the tests of all formats do with a file of them."""

import io

import numpy as np
import pytest

from plasticity.errors import UserError
from tasks.data import load

RNG = np.random.default_rng(2)
GREY = RNG.integers(0, 256, (10, 6, 4), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (10, 6, 4, 3), dtype=np.uint8)
LABELS = np.arange(10) % 3


def png(image: np.ndarray, kind="PNG", mode=None) -> bytes:
    picture = pytest.importorskip("PIL.Image").fromarray(image)
    file = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(file, kind)
    return file.getvalue()


def fails(message: str, path, examples_used=10) -> None:
    with pytest.raises(UserError) as error:
        load(str(path), examples_used)
    assert message in str(error.value), f"\nwanted: {message}\nfound:  {error.value}"


def holds(path, images: np.ndarray, labels=LABELS) -> None:
    data = load(str(path), len(images))
    np.testing.assert_array_equal(data.images, images.reshape(len(images), 6, 4, -1))
    np.testing.assert_array_equal(data.labels, labels)
