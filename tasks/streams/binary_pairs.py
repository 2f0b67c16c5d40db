"""Two classes at a time: tell the first of a random pair from the second.

The classes are put in a random order and taken two by two; when they run out (an odd one is left), a new order is
drawn. The network has two outputs, 0 for the first of a pair and 1 for the second, which mean something else in each
task.

Source: Continual ImageNet, Dohare et al. 2024, Nature 632: 1,000 classes at 32 x 32, 600 training and 100 test examples
of each, 250 epochs of batches of 100 a task, 2,000 tasks and more, output layer set to zero at each switch (mitigation:
a reset of the head). There the same order comes again; a new one is drawn, as here, in Kumar et al. 2023,
arXiv:2308.11958.
Optimum: that of the data. Chance: 1/2.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from plasticity.config import static
from tasks.base import Problem, tasks
from tasks.data.sets import Images
from tasks.streams._classes import ClassTask, Window


@tasks.register("binary_pairs")
class BinaryPairs(ClassTask):
    """Tell two classes apart, a new random pair of them in each task, with two outputs.

    The classes are taken two by two from a random order, then from a new one. Chance is 1/2.
    """

    reference: ClassVar[str] = "Dohare et al. 2024, Nature 632; Kumar et al. 2023, arXiv:2308.11958"
    levels: ClassVar[str] = "chance 1/2; optimum: that of the data"
    #: imagenet32.npz stands for the user's own file: 700 images of each class, the last 100 of each at its end.
    protocols: ClassVar[dict[str, str]] = {
        "nature": "binary_pairs(per_class=600, steps=3000, num_tasks=2000, batch_size=100, examples_used=600000, "
        "held_out=100000, data=imagenet32.npz)",
        "l2_init": "binary_pairs(per_class=600, steps=120, num_tasks=500, batch_size=100, examples_used=600000, "
        "held_out=100000, data=imagenet32.npz)",
    }

    num_tasks: int = static(30, ge=1, unit="tasks", help="tasks in the stream")

    def problem(self, data: Images) -> Problem:
        return super().problem(data)._replace(classes=2)

    def _pairs(self, data: Images) -> int:
        return max(data.classes // 2, 1)

    def window(self, index: Any, data: Images) -> tuple[Any, Any]:
        return 2 * (index % self._pairs(data)), 2

    def reordered(self, order: jax.Array, key: jax.Array, index: jax.Array, data: Images) -> jax.Array:
        return jax.lax.cond(index % self._pairs(data) == 0, lambda: jax.random.permutation(key, order), lambda: order)

    def named(self, context: Window, labels: jax.Array) -> jax.Array:
        # 0 for classes that are not there, which have no weight but need a label that exists.
        return (labels == context.order[context.start + 1]).astype(jnp.int32)
