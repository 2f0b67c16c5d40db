"""Streams in which the classes that are there change: a window over a random order of the classes.

The order of the classes is drawn from the key. Task t has the classes at places start .. start + number - 1 of the
order, and of each of them the first m training examples, m as many as the smallest class has (or `per_class`): how many
examples a task has then depends on no key, and no class is more frequent than another. Held-out examples are those of
the same classes, all of them.

The outputs for classes that are not there stay in the loss, or with `masked` are left out of it and of predictions.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.config import config, static
from plasticity.errors import UserError
from tasks.augment import PictureTask
from tasks.base import Batch, Problem, State
from tasks.data.sets import Images


class Window(NamedTuple):
    """order: the classes in the order of the stream, int32 `[classes]`; start: the first place in it of this task;
    classes: which are in the task, bool `[classes]`; there: which examples are, bool `[examples + held_out]`."""

    order: jax.Array
    start: jax.Array
    classes: jax.Array
    there: jax.Array


@config
class ClassTask(PictureTask):
    """Dials of streams in which the classes that are there change."""

    kind = "classification"
    score_label: ClassVar[str] = "accuracy"

    per_class: int = static(
        0, ge=0, unit="examples", help="examples of each class, the first so many; 0 = as many as the smallest has"
    )

    masked: bool = static(False, help="leave the outputs of classes that are not in the task out of the loss")

    # What a member defines ----------------------------------------------------------------------------------

    def window(self, index: Any, data: Images) -> tuple[Any, Any]:
        """The first place in the order, and the number, of the classes in task `index` (a number or traced)."""
        raise TypeError(f"task {self.name} has no window")

    def reordered(self, order: jax.Array, key: jax.Array, index: jax.Array, data: Images) -> jax.Array:
        """The order of the classes in task `index`, after that of the task before: the same, unless overridden."""
        return order

    def named(self, context: Window, labels: jax.Array) -> jax.Array:
        """What the network is to say for these true labels, int32 `[batch]`: the same, unless overridden."""
        return labels

    # What follows -------------------------------------------------------------------------------------------

    def _windows(self, data: Images) -> list[tuple[int, int]]:
        return [(int(start), int(number)) for start, number in (self.window(t, data) for t in range(self.num_tasks))]

    def _each(self, data: Images) -> int:
        return self.per_class or min(data.counts)

    def check(self, data: Images) -> None:
        if min(data.counts) < max(self.per_class, 1):
            raise UserError(
                f"{self.name}: every class needs {max(self.per_class, 1)} of the {data.examples} training examples "
                f"(per_class={self.per_class}), class {np.argmin(data.counts)} has {min(data.counts)}"
            )
        needed = [start + number for start, number in self._windows(data)]
        if max(needed) > data.classes:
            raise UserError(
                f"{self.name}: num_tasks={self.num_tasks} need {max(needed)} classes, {self.data} has {data.classes}; "
                f"num_tasks may be at most {sum(n <= data.classes for n in needed)}"
            )
        held_out = np.bincount(np.asarray(data.labels)[data.examples :], minlength=data.classes)
        if data.held_out and not held_out.all():
            raise UserError(
                f"{self.name}: held_out={data.held_out} must hold an example of every class, "
                f"class {np.argmin(held_out)} has none"
            )
        super().check(data)

    def problem(self, data: Images) -> Problem:
        """`chance` is that of the task with most classes; `baselines` has that of each task."""
        chance = 1 / max(number for _, number in self._windows(data))
        return Problem("classification", data.classes, (0.0, 0.0), chance)

    def baselines(self, state: State, index: jax.Array, data: Images) -> dict[str, jax.Array]:
        """chance: one in as many classes as the task has."""
        return {"chance": 1 / jnp.asarray(self.window(index, data)[1], jnp.float32)}

    def count(self, index: Any, data: Images) -> Any:
        return self.window(index, data)[1] * self._each(data)

    def _context(self, order: jax.Array, index: jax.Array, data: Images) -> Window:
        start, number = self.window(index, data)
        place = jnp.argsort(order) - start
        in_window = (place >= 0) & (place < number)
        start = jnp.asarray(start, jnp.int32)
        return Window(order, start, in_window, in_window[data.labels] & self._kept(data))

    def _kept(self, data: Images) -> jax.Array:
        """Of each class its first m training examples, and all held-out ones: bool `[examples + held_out]`."""
        labels = data.labels[: data.examples]
        by_class = jnp.argsort(labels, stable=True)
        counts = np.asarray(data.counts)
        starts = jnp.asarray(np.cumsum(counts) - counts)
        rank = jnp.zeros_like(labels).at[by_class].set(jnp.arange(data.examples) - starts[labels[by_class]])
        return jnp.concatenate([rank < self._each(data), jnp.ones(data.held_out, bool)])

    def first(self, key: jax.Array, data: Images) -> Window:
        order = jax.random.permutation(key, jnp.arange(data.classes, dtype=jnp.int32))
        return self._context(order, jnp.int32(0), data)

    def following(self, context: Window, key: jax.Array, index: jax.Array, data: Images) -> Window:
        return self._context(self.reordered(context.order, key, index, data), index, data)

    def active(self, context: Window, index: jax.Array, data: Images) -> jax.Array:
        return context.there

    def examples(self, context: Window, indices: jax.Array, data: Images) -> Batch:
        batch = Batch(data.inputs(indices), self.named(context, data.labels[indices]))
        if not self.masked:
            return batch
        said = jnp.zeros(self.problem(data).classes, bool)
        said = said.at[self.named(context, jnp.arange(data.classes))].max(context.classes)
        return batch._replace(classes=jnp.broadcast_to(said, (len(indices), len(said))))
