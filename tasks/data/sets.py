"""What a task stands on: arrays on the device, shared by all runs of a group.

`Images`: labelled pictures, uint8, normalised when they are read. `Series`: labelled rows of numbers in their own
order, which is time. `Text`: tokens in a row. Tasks that make their own examples stand on an empty tuple.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np


class _HasCounts(Protocol):
    @property
    def counts(self) -> tuple[int, ...]: ...


class _Counted:
    """What follows from `counts`: how often each class, or token, occurs."""

    @property
    def classes(self: _HasCounts) -> int:
        """Number of classes, or of different tokens."""
        return len(self.counts)

    @property
    def majority(self: _HasCounts) -> float:
        """Share of the most frequent one: the accuracy of the best input-blind prediction of the true labels."""
        return max(self.counts) / sum(self.counts)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["images", "labels", "mean", "std"],
    meta_fields=["counts", "held_out"],
)
@dataclasses.dataclass(frozen=True)
class Images(_Counted):
    """images: uint8 `[examples + held_out, height, width, channels]`; labels: int32 `[examples + held_out]`.

    mean, std `[channels]`: of images / 255. counts: training examples of each class. held_out: how many of the last
    images are never trained on. Statistics and counts are those of the training examples. `counts` and `held_out` are
    static, so that numbers of classes and examples are plain also where the arrays are traced.
    """

    images: jax.Array
    labels: jax.Array
    mean: jax.Array
    std: jax.Array
    counts: tuple[int, ...]
    held_out: int = 0

    @classmethod
    def of(cls, images: np.ndarray, labels: np.ndarray, classes: int | None = None, held_out: int = 0) -> Images:
        """The data on the device, with their statistics. `classes` defaults to the highest label + 1."""
        labels = labels.astype(np.int32)
        classes = int(labels.max()) + 1 if classes is None else classes
        trained = len(labels) - held_out
        # Per channel from the 256 grey levels: exact, and without a copy of all images in a larger type.
        levels = np.arange(256) / 255.0
        shares = _grey_levels(images[:trained])
        mean = np.array([np.average(levels, weights=s) for s in shares])
        std = np.sqrt([np.average((levels - m) ** 2, weights=s) for s, m in zip(shares, mean, strict=True)])
        # A constant channel (an empty border, a blank set) carries nothing; it must not become nan.
        std = np.where(std > 0, std, 1.0)
        counts = tuple(int(c) for c in np.bincount(labels[:trained], minlength=classes))
        as_float = partial(jnp.asarray, dtype=jnp.float32)
        return cls(jnp.asarray(images), jnp.asarray(labels), as_float(mean), as_float(std), counts, held_out)

    @property
    def examples(self) -> int:
        """Number of training examples: the first so many."""
        return self.labels.shape[0] - self.held_out

    def inputs(self, indices: jax.Array) -> jax.Array:
        """Normalised float32 images `[batch, height, width, channels]`."""
        return (self.images[indices].astype(jnp.float32) / 255.0 - self.mean) / self.std


def _grey_levels(images: np.ndarray) -> np.ndarray:
    """How many pixels of each channel have each of the 256 levels: int64 `[channels, 256]`."""
    counts = np.zeros((images.shape[-1], 256), np.int64)
    for start in range(0, len(images), 1024):  # bincount works on a copy of 8 bytes a value
        for channel, count in enumerate(counts):
            count += np.bincount(images[start : start + 1024, ..., channel].ravel(), minlength=256)
    return counts


@partial(jax.tree_util.register_dataclass, data_fields=["features", "labels"], meta_fields=["counts"])
@dataclasses.dataclass(frozen=True)
class Series(_Counted):
    """features: float32 `[rows, features]`; labels: int32 `[rows]`; counts: rows of each class, static."""

    features: jax.Array
    labels: jax.Array
    counts: tuple[int, ...]

    @classmethod
    def of(cls, features: np.ndarray, labels: np.ndarray, classes: int | None = None) -> Series:
        """The series on the device. `classes` defaults to the highest label + 1."""
        labels = labels.astype(np.int32)
        counts = np.bincount(labels, minlength=0 if classes is None else classes)
        return cls(jnp.asarray(features, jnp.float32), jnp.asarray(labels), tuple(int(c) for c in counts))


@partial(jax.tree_util.register_dataclass, data_fields=["tokens"], meta_fields=["alphabet", "counts"])
@dataclasses.dataclass(frozen=True)
class Text(_Counted):
    """tokens: int32 `[length]`; alphabet: what each token stands for; counts: how often each occurs. The latter two are
    static."""

    tokens: jax.Array
    alphabet: tuple[str, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, tokens: np.ndarray, alphabet: tuple[str, ...]) -> Text:
        """The text on the device. Tokens are below `len(alphabet)`."""
        counts = tuple(int(c) for c in np.bincount(tokens, minlength=len(alphabet)))
        return cls(jnp.asarray(tokens, jnp.int32), alphabet, counts)

    @property
    def vocabulary(self) -> int:
        """Number of different tokens."""
        return len(self.alphabet)
