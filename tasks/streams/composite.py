"""Several nonstationarities at once: inputs are transformed and labels re-drawn at one switch, and targets may grow.

At a switch a share of the pixels changes places (as in `input_permutation`, from the current order on), and the share
eps of the labels is re-drawn, uniform over the C classes (as in `label_reset`). What the network is to say:

- `composite`, classification: the label z. mode=continual leaves the inputs as they are, so that only labels change;
  mode=composite changes both.
- `composite_growing`, regression: y_t = offset * t + (1 + scale * t) * (2 z / (C - 1) - 1), the label as a number in
  [-1, 1], whose mean and scale grow with the task t = 0, 1, ...

Source: the modes "continual", "composite" and "growing" of Lyle et al. 2024 (arXiv:2402.18762), figure 5 and section
4.2: CIFAR-10, 20 tasks, "input transform + label reset + target growth". Their exact transforms, shares and rates are
not published. That the transform is a permutation of pixels, that growing targets are numbers made of labels, and all
defaults are this suite's. Optimum: 1 (any labelling of distinct images can be memorised). Chance: accuracy 1/C;
explained variance 0.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.config import config, static, traced
from tasks.base import Batch, Problem, tasks
from tasks.data.sets import Images
from tasks.examples import ExampleTask
from tasks.streams._pixels import WHAT, arranged, places
from tasks.streams._renaming import cycle
from tasks.streams.label_reset import redrawn


class Both(NamedTuple):
    """order: which value comes to each place of an image, int32 `[places]`; labels: int32 `[examples]`; task: its
    number, int32."""

    order: jax.Array
    labels: jax.Array
    task: jax.Array


@config
class CompositeTask(ExampleTask):
    """What is common to the composite streams."""

    generalizes: ClassVar[bool] = False
    moves_inputs: ClassVar[bool] = True
    reference: ClassVar[str] = "Lyle et al. 2024, arXiv:2402.18762, figure 5 and section 4.2; the details of this suite"

    num_tasks: int = static(20, ge=1, unit="tasks", help="tasks in the stream")
    eps: float = traced(1.0, ge=0, le=1, positional=True, help="share of the labels re-drawn at a switch")
    share: float = traced(1.0, ge=0, le=1, help="share of the places whose values move at a switch")
    what: str = static("full", choices=WHAT, help="what moves: all values, positions of all channels alike, or rows")

    def targets(self, labels: jax.Array, task: jax.Array, data: Images) -> jax.Array:
        """What the network is to say for these labels in a task."""
        return labels

    def moved(self, order: jax.Array, key: jax.Array, data: Images) -> jax.Array:
        """The order of the pixels after a switch."""
        return order[cycle(key, places(self.what, data), self.share)]

    def first(self, key: jax.Array, data: Images) -> Both:
        labels = jax.random.randint(key, (data.examples,), 0, data.classes)
        order = jnp.arange(places(self.what, data), dtype=jnp.int32)
        return Both(order, labels, jnp.int32(0))

    def following(self, context: Both, key: jax.Array, index: jax.Array, data: Images) -> Both:
        key_order, key_which, key_label = jax.random.split(key, 3)
        labels = redrawn(context.labels, key_which, key_label, self.eps, data.classes)
        return Both(self.moved(context.order, key_order, data), labels, jnp.asarray(index, jnp.int32))

    def examples(self, context: Both, indices: jax.Array, data: Images) -> Batch:
        x = arranged(self.what, data.inputs(indices), context.order)
        return Batch(x, self.targets(context.labels[indices], context.task, data))


@tasks.register("composite")
class Composite(CompositeTask):
    """Memorise random labels while, at every switch, a share of them is re-drawn and pixels change places.

    mode=continual: only labels change. The optimum is accuracy 1, chance is 1/C.
    """

    kind = "classification"
    score_label: ClassVar[str] = "accuracy"
    levels: ClassVar[str] = "chance 1 / classes; optimum 1"

    mode: str = static(
        "composite", choices=("continual", "composite"), help="continual: labels change; composite: inputs as well"
    )

    def problem(self, data: Images) -> Problem:
        return Problem("classification", data.classes, (0.0, 0.0), 1 / data.classes)

    def moved(self, order: jax.Array, key: jax.Array, data: Images) -> jax.Array:
        return order if self.mode == "continual" else super().moved(order, key, data)


@tasks.register("composite_growing")
class CompositeGrowing(CompositeTask):
    """Regression onto random labels as numbers, whose mean and scale grow, while labels and pixels change.

    y_t = offset * t + (1 + scale * t) * (2 z / (C - 1) - 1) for label z of C classes; at a switch a share eps of the
    labels is re-drawn and pixels change places. The optimum is explained variance 1, chance is 0.
    """

    kind = "regression"
    score_label: ClassVar[str] = "explained variance"
    levels: ClassVar[str] = "chance 0; optimum 1"

    offset: float = traced(1.0, ge=0, help="growth of the targets' mean per task")
    scale: float = traced(0.0, ge=0, help="growth of the targets' scale per task")

    def problem(self, data: Images) -> Problem:
        """`target_range` is exact: both ends move in a straight line."""
        last = self.num_tasks - 1
        mean, half = self.offset * last, 1 + self.scale * last
        # `min` cannot tell which of two tracers is less.
        plain = isinstance(self.offset, int | float) and isinstance(self.scale, int | float)
        low = (min if plain else jnp.minimum)(-1.0, mean - half)
        return Problem("regression", 0, (low, mean + half), 0.0)

    def targets(self, labels: jax.Array, task: jax.Array, data: Images) -> jax.Array:
        as_number = 2 * labels.astype(jnp.float32) / (data.classes - 1) - 1
        return self.offset * task + (1 + self.scale * task) * as_number
