"""Streams in which the examples arrive in chunks of a random order, some of them under wrong labels.

Examples have a random rank, drawn at the start; a task has those of ranks low .. high - 1. Of its labels a share is
wrong: exactly round(share * examples) examples, chosen at random at its switch, have one of the other classes, each as
likely. Held-out examples always have their true labels.

Wrong labels as in the code of Lee et al. 2024 (arXiv:2406.02596), who draw them anew for all examples of a task.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.config import config
from tasks.augment import PictureTask
from tasks.base import Batch, Problem
from tasks.data.sets import Images


class Chunks(NamedTuple):
    """rank: of each example in the random order, int32 `[examples]`; labels: int32 `[examples + held_out]`."""

    rank: jax.Array
    labels: jax.Array


@config
class ChunkTask(PictureTask):
    """Dials of streams in which the examples arrive in chunks."""

    kind = "classification"
    score_label: ClassVar[str] = "accuracy"
    levels: ClassVar[str] = "chance: share of the largest class; optimum: that of the data, on held-out examples"

    # What a member defines ----------------------------------------------------------------------------------

    def bounds(self, data: Images) -> list[tuple[int, int]]:
        """The lowest rank and the one after the highest of each task."""
        raise TypeError(f"task {self.name} has no chunks")

    def wrong(self, index: jax.Array) -> Any:
        """The share of wrong labels in task `index`."""
        raise TypeError(f"task {self.name} has no noise")

    # What follows -------------------------------------------------------------------------------------------

    def problem(self, data: Images) -> Problem:
        return Problem("classification", data.classes, (0.0, 0.0), data.majority)

    def count(self, index: Any, data: Images) -> Any:
        sizes = [high - low for low, high in self.bounds(data)]
        return sizes[index] if isinstance(index, int) else jnp.array(sizes)[index]

    def active(self, context: Chunks, index: jax.Array, data: Images) -> jax.Array:
        low, high = jnp.array(self.bounds(data))[index]
        there = (context.rank >= low) & (context.rank < high)
        return jnp.concatenate([there, jnp.ones(data.held_out, bool)])

    def first(self, key: jax.Array, data: Images) -> Chunks:
        key_rank, key_wrong = jax.random.split(key)
        rank = jax.random.permutation(key_rank, jnp.arange(data.examples, dtype=jnp.int32))
        return self._labelled(rank, key_wrong, jnp.int32(0), data)

    def following(self, context: Chunks, key: jax.Array, index: jax.Array, data: Images) -> Chunks:
        return self._labelled(context.rank, key, index, data)

    def _labelled(self, rank: jax.Array, key: jax.Array, index: jax.Array, data: Images) -> Chunks:
        key_which, key_label = jax.random.split(key)
        there = self.active(Chunks(rank, data.labels), index, data)[: data.examples]
        # Those of the task first, in random order: the first so many of them are mislabelled, an exact number though
        # share and count are traced.
        order = jnp.argsort(jnp.where(there, jax.random.uniform(key_which, there.shape), 2.0))
        number = jnp.round(self.wrong(index) * self.count(index, data))
        is_wrong = jnp.zeros_like(there).at[order].set(jnp.arange(data.examples) < number)
        others = jax.random.randint(key_label, there.shape, 1, data.classes)
        shift = jnp.where(is_wrong, others, 0)
        labels = data.labels.at[: data.examples].add(shift) % data.classes
        return Chunks(rank, labels)

    def examples(self, context: Chunks, indices: jax.Array, data: Images) -> Batch:
        return Batch(data.inputs(indices), context.labels[indices])
