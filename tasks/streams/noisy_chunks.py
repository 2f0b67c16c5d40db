"""Chunks of data whose labels grow more reliable: what was learned from the first ones must be given up.

The examples are cut at random into `num_tasks` equal chunks. Task t has chunk t, or with `cumulative` chunks 0 to t,
and the t-th share of `noise` of its labels is wrong (the last share from then on).

Source: Lee et al. 2024, arXiv:2406.02596, there 10 chunks, 10 epochs each, noise .5 .4 .4 .3 .3 .2 .2 .1 .1 0.
Measure on held-out examples, whose labels are true. Optimum: that of the data, on held-out examples. Chance: the share
of the largest class.
"""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from plasticity.config import static
from plasticity.errors import UserError
from tasks.base import tasks
from tasks.data.sets import Images
from tasks.streams._chunks import ChunkTask


@tasks.register("noisy_chunks")
class NoisyChunks(ChunkTask):
    """Classify chunk after chunk of the data, with fewer and fewer wrong labels.

    The examples are cut at random into num_tasks equal chunks; of the labels in task t the t-th share of `noise` is
    wrong. What counts is the score on held-out examples, whose labels are true.
    """

    reference: ClassVar[str] = "Lee et al. 2024, arXiv:2406.02596"
    protocols: ClassVar[dict[str, str]] = {
        "hare_tortoise": "noisy_chunks(epochs=10, batch_size=256, examples_used=50000, held_out=10000, data=cifar10)",
    }

    num_tasks: int = static(10, ge=1, unit="tasks", help="tasks in the stream, and chunks")
    noise: str = static(
        ".5 .4 .4 .3 .3 .2 .2 .1 .1 0", help="share of wrong labels in each task; the last one from then on"
    )
    cumulative: bool = static(False, help="keep the chunks of earlier tasks")

    def validate(self) -> None:
        super().validate()
        self._noise()

    def _noise(self) -> list[float]:
        try:
            noise = [float(word) for word in self.noise.split()]
        except ValueError:
            noise = []
        if not noise or not all(0 <= share <= 1 for share in noise):
            raise UserError(
                f"{self.name}: noise of num_tasks tasks must be numbers from 0 to 1 with spaces between, "
                f"got {self.noise!r}"
            )
        return noise

    def bounds(self, data: Images) -> list[tuple[int, int]]:
        ends = [round(data.examples * task / self.num_tasks) for task in range(self.num_tasks + 1)]
        return [(0 if self.cumulative else low, high) for low, high in itertools.pairwise(ends)]

    def wrong(self, index: jax.Array) -> Any:
        noise = self._noise()
        return jnp.array(noise)[jnp.minimum(index, len(noise) - 1)]
