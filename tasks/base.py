"""The task contract: a nonstationary supervised stream as pure functions of keys.

A task stream is a sequence of `num_tasks` tasks of `steps` updates each on one fixed set of examples. What
changes at a switch is the *context* (a labelling, a permutation, an offset ...). A member of the family says
how the first context is drawn (`first`), how the next follows (`following`), and what the examples look like
under one (`examples`); everything else is here:

- `init(key, data) -> state`, `advance(state, key, data) -> state` (the switch),
  `batch(state, key, step, data) -> (state, Batch)` and `evaluation(state, data) -> Batch`.
- Batches run through the examples without replacement; a new order is drawn each epoch.
- `transition` is the smoothness of the switch: over the first `transition * steps` updates of a task the
  share of the new context rises linearly from 0 to 1. Classes are mixed (each example is drawn from the old
  or the new context), regression targets are interpolated. 0 is an abrupt switch.

The data are one array on the device, uint8, shared by all runs and normalised on the fly.
`step` counts updates within the task and must not be batched, so that the rare work stays behind a branch.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.config import Config, config, static, traced
from plasticity.errors import UserError
from plasticity.registry import Family


@partial(jax.tree_util.register_dataclass, data_fields=["images", "labels", "mean", "std"], meta_fields=["counts"])
@dataclasses.dataclass(frozen=True)
class Data:
    """images: uint8 `[examples, height, width, channels]`; labels: int32 `[examples]`; mean, std
    `[channels]`: of images / 255; counts: examples of each class.

    `counts` is static, so that the number of classes is a plain number also where the arrays are traced.
    """

    images: jax.Array
    labels: jax.Array
    mean: jax.Array
    std: jax.Array
    counts: tuple[int, ...]

    @classmethod
    def of(cls, images: np.ndarray, labels: np.ndarray, classes: int | None = None) -> Data:
        """The data on the device, with their statistics. `classes` defaults to the highest label + 1."""
        labels = labels.astype(np.int32)
        classes = int(labels.max()) + 1 if classes is None else classes
        # Per channel from the 256 grey levels: exact, and without a float copy of all images.
        levels = np.arange(256) / 255.0
        shares = [np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])]
        mean = np.array([np.average(levels, weights=s) for s in shares])
        std = np.sqrt([np.average((levels - m) ** 2, weights=s) for s, m in zip(shares, mean, strict=True)])
        # A constant channel (an empty border, a blank set) carries nothing; it must not become nan.
        std = np.where(std > 0, std, 1.0)
        counts = tuple(int(c) for c in np.bincount(labels, minlength=classes))
        as_float = partial(jnp.asarray, dtype=jnp.float32)
        return cls(jnp.asarray(images), jnp.asarray(labels), as_float(mean), as_float(std), counts)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.counts)

    @property
    def majority(self) -> float:
        """Share of the largest class: the accuracy of the best input-blind prediction of the true labels."""
        return max(self.counts) / sum(self.counts)

    def inputs(self, indices: jax.Array) -> jax.Array:
        """Normalised float32 images `[batch, height, width, channels]`."""
        return (self.images[indices].astype(jnp.float32) / 255.0 - self.mean) / self.std


class Batch(NamedTuple):
    """x: float32 `[batch, ...]`; y: int32 class labels or float32 targets `[batch]`."""

    x: jax.Array
    y: jax.Array


class Problem(NamedTuple):
    """What a network must be built for. `target_range`: lowest and highest regression target over the whole
    stream (stated, not measured); `chance`: the score of an input-blind prediction."""

    kind: Literal["classification", "regression"]
    classes: int
    target_range: tuple[Any, Any]
    chance: float


class State(NamedTuple):
    """order: permutation of the examples in this epoch; previous, current: contexts; index: of the task."""

    order: jax.Array
    previous: Any
    current: Any
    index: jax.Array


@config
class Task(Config):
    """Dials that every task has."""

    name: ClassVar[str]
    reference: ClassVar[str] = ""
    kind: ClassVar[Literal["classification", "regression"]]
    #: What the score of this task is, for axis labels.
    score_label: ClassVar[str]

    steps: int = static(400, ge=1, unit="updates", help="updates per task")
    num_tasks: int = static(30, ge=1, unit="tasks", help="tasks in the stream")
    batch_size: int = static(100, ge=1, unit="examples", help="examples per update")
    examples_used: int = static(
        2000, ge=1, unit="examples", help="examples in the stream, the first so many of the data"
    )
    transition: float = traced(0.0, ge=0, le=1, help="share of a task over which the switch is smeared; 0 = abrupt")
    data: str = static("fashion_mnist", help="name of a data set, or the path of an idx(.gz) or npz file")
    pool: int = static(1, ge=1, unit="pixels", help="average-pool the images by this factor (1 = full size)")

    def validate(self) -> None:
        if self.batch_size > self.examples_used:
            raise UserError(
                f"{self.name}: batch_size must be at most examples_used ({self.examples_used}), got {self.batch_size}"
            )

    # What a member defines ----------------------------------------------------------------------------------

    def problem(self, data: Data) -> Problem:
        """The kind of problem, the number of classes, the stated target range and the chance level."""
        raise TypeError(f"task {self.name} states no problem")

    def first(self, key: jax.Array, data: Data) -> Any:
        """The context of task 0."""
        raise TypeError(f"task {self.name} has no first context")

    def following(self, context: Any, key: jax.Array, index: jax.Array, data: Data) -> Any:
        """The context of task `index` (>= 1) after `context`."""
        raise TypeError(f"task {self.name} has no following context")

    def examples(self, context: Any, indices: jax.Array, data: Data) -> Batch:
        """The examples at `indices` as they are under a context."""
        raise TypeError(f"task {self.name} has no examples")

    # What every task shares ---------------------------------------------------------------------------------

    def init(self, key: jax.Array, data: Data) -> State:
        """The state at the start of task 0."""
        context = self.first(key, data)
        order = jnp.arange(data.labels.shape[0], dtype=jnp.int32)
        return State(order, context, context, jnp.zeros((), jnp.int32))

    def advance(self, state: State, key: jax.Array, data: Data) -> State:
        """Switch to the next task."""
        index = state.index + 1
        return State(state.order, state.current, self.following(state.current, key, index, data), index)

    def batch(self, state: State, key: jax.Array, step: jax.Array, data: Data) -> tuple[State, Batch]:
        """The batch of update `step` (0-based within the task), and the state with this epoch's order."""
        per_epoch = data.labels.shape[0] // self.batch_size
        order = jax.lax.cond(
            step % per_epoch == 0,
            lambda order: jax.random.permutation(jax.random.fold_in(key, 0), order),
            lambda order: order,
            state.order,
        )
        start = (step % per_epoch) * self.batch_size
        indices = jax.lax.dynamic_slice_in_dim(order, start, self.batch_size)
        new = self.examples(state.current, indices, data)
        # At least one update, so that an abrupt switch (no update is inside the ramp) divides by no zero.
        ramp = self.transition * self.steps
        share = step / jnp.maximum(ramp, 1.0)
        batch = jax.lax.cond(
            step < ramp,
            lambda new: self._mix(self.examples(state.previous, indices, data), new, share, jax.random.fold_in(key, 1)),
            lambda new: new,
            new,
        )
        return state._replace(order=order), batch

    def _mix(self, old: Batch, new: Batch, share: jax.Array, key: jax.Array) -> Batch:
        if self.kind == "regression":
            return jax.tree.map(lambda a, b: ((1 - share) * a + share * b).astype(b.dtype), old, new)
        take_new = jax.random.bernoulli(key, share, (self.batch_size,))
        return jax.tree.map(lambda a, b: jnp.where(take_new.reshape(-1, *[1] * (a.ndim - 1)), b, a), old, new)

    def evaluation(self, state: State, data: Data) -> Batch:
        """All examples of the stream under the current context."""
        return self.examples(state.current, jnp.arange(data.labels.shape[0]), data)


tasks: Family[Task] = Family("task", "tasks.streams")
