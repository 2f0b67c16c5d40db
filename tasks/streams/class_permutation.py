"""True labels, renamed by a permutation of the classes that changes at every switch.

    y_t(x) = p_t(label(x)),   p_t = c_t ∘ p_{t-1},   p_0 = identity

c_t is a cycle over k classes drawn at random and in random order, k = round(share · C), but at least 2 for
any share > 0. Each of the k classes gets the name of another, so every switch changes exactly the labels of k
classes.
Deviation: the usual draw is a uniform permutation of all classes, which leaves one class in place on average.

In contrast to `label_reset` the inputs of one class keep a common label, so that features learned earlier
stay useful and only the last layer must change. Source: the second of the two shifts under which Lyle et al.
2024 (arXiv:2402.18762) follow the units, figure 2. Optimum: that of the data set. Chance: the share of the
largest class.
"""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp

from plasticity.config import traced
from tasks.base import Batch, Problem, tasks
from tasks.data.sets import Images
from tasks.examples import ExampleTask
from tasks.streams._renaming import cycle


@tasks.register("class_permutation")
class ClassPermutation(ExampleTask):
    """Classify by true labels whose class names are permuted at every switch.

    At a switch a cycle over k = round(share · C) random classes (at least 2 if share > 0) is applied to the
    labels: exactly these classes change their name. The optimum is that of the data set, chance the share of
    its largest
    class.
    """

    reference: ClassVar[str] = "Lyle et al. 2024, arXiv:2402.18762, section 3.2 and figure 2"
    kind = "classification"
    score_label: ClassVar[str] = "accuracy"
    levels: ClassVar[str] = "chance: share of the largest class; optimum: that of the data"

    share: float = traced(1.0, ge=0, le=1, positional=True, help="share of the classes renamed at a switch")

    def problem(self, data: Images) -> Problem:
        return Problem("classification", data.classes, (0.0, 0.0), data.majority)

    def first(self, key: jax.Array, data: Images) -> jax.Array:
        """The new name of each class, int32 `[classes]`."""
        return jnp.arange(data.classes, dtype=jnp.int32)

    def following(self, context: jax.Array, key: jax.Array, index: jax.Array, data: Images) -> jax.Array:
        return cycle(key, data.classes, self.share)[context]

    def examples(self, context: jax.Array, indices: jax.Array, data: Images) -> Batch:
        return Batch(data.inputs(indices), context[data.labels[indices]])
