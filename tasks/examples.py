"""Tasks on a fixed set of labelled images: batches run through the examples without replacement.

A member says what the examples look like under a context (`examples`), and, if not all of them are there in every task,
which are (`active`) and how many that makes (`count`). A new order of the task's own examples is drawn each epoch; what
is left of an epoch after its last whole batch is not seen. The data are one array on the device, uint8, shared by all
runs and normalised on the fly.

A task takes `steps` updates, or with `epochs` so many passes over its own examples: where tasks grow, so do they. With
`stop_at` a run rests for the remainder of a task once the accuracy over an epoch, each batch judged before its update,
is that high; how many updates it took is recorded (`updates_taken`).
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.config import config, static
from plasticity.errors import UserError
from tasks.base import Batch, State, Stop, Task
from tasks.data import load
from tasks.data.sets import Images


class Order(NamedTuple):
    """A permutation of the examples, those of the task first; and that of the task before, where tasks differ in it."""

    now: jax.Array
    before: Any = ()


@config
class ExampleTask(Task):
    """Dials of tasks on a fixed set of examples."""

    #: Whether held-out examples mean something: not where every example has a label or target of its own.
    generalizes: ClassVar[bool] = True
    #: Whether a switch changes the inputs: a transition then mixes examples, also in regression.
    moves_inputs: ClassVar[bool] = False

    examples_used: int = static(
        2000, ge=1, unit="examples", help="examples in the stream, the first so many of the data"
    )
    held_out: int = static(0, ge=0, unit="examples", help="examples after these, on which the network is tested only")
    data: str = static("fashion_mnist", help="name of a data set, or the path of a file or folder with one")
    pool: int = static(1, ge=1, unit="pixels", help="average-pool the images by this factor (1 = full size)")
    epochs: int = static(
        0, ge=0, unit="epochs", help="passes over a task's own examples, in the place of steps; 0 = steps"
    )
    stop_at: float = static(
        0.0, ge=0, le=1, help="online accuracy over an epoch at which a run rests until the next task; 0 = never"
    )

    def validate(self) -> None:
        if self.batch_size > self.examples_used:
            raise UserError(
                f"{self.name}: batch_size must be at most examples_used ({self.examples_used}), got {self.batch_size}"
            )
        if self.held_out and not self.generalizes:
            raise UserError(
                f"{self.name}: held_out must be 0, got {self.held_out}: each example of the data has a target of its "
                "own here, which says nothing about another"
            )

    # What a member defines ----------------------------------------------------------------------------------

    def examples(self, context: Any, indices: jax.Array, data: Images) -> Batch:
        """The examples at `indices` as they are under a context."""
        raise TypeError(f"task {self.name} has no examples")

    def active(self, context: Any, index: jax.Array, data: Images) -> jax.Array | None:
        """Which examples, held-out ones among them, are in task `index`: bool `[examples + held_out]`; None for all."""
        return None

    def count(self, index: Any, data: Images) -> Any:
        """How many training examples are in task `index`. Must not depend on a key."""
        return data.examples

    # What follows -------------------------------------------------------------------------------------------

    def per_epoch(self, index: Any, data: Images) -> Any:
        """Updates in an epoch of task `index`."""
        return self.count(index, data) // self.batch_size

    def length(self, index: Any, data: Images) -> Any:
        return self.epochs * self.per_epoch(index, data) if self.epochs else self.steps

    def before(self, index: Any, data: Images) -> Any:
        if not self.epochs:
            return index * self.steps
        starts = np.cumsum([0, *(self.length(i, data) for i in range(self.num_tasks))])
        return int(starts[index]) if isinstance(index, int) else jnp.asarray(starts, jnp.int32)[index]

    def stop(self, index: Any, data: Images) -> Stop | None:
        return Stop(self.stop_at, self.per_epoch(index, data)) if self.stop_at else None

    def load(self) -> Images:
        data = load(self.data, self.examples_used, self.pool, self.held_out)
        self.check(data)
        return data

    def check(self, data: Images) -> None:
        """Raise `UserError` if the task cannot be run on the data."""
        if self.stop_at and self.kind != "classification":
            raise UserError(
                f"{self.name}: stop_at is an accuracy, which a task of {self.kind} has not; got {self.stop_at}"
            )
        if data.images.shape[0] != data.labels.shape[0]:
            raise UserError(
                f"{self.name}: the data have {data.images.shape[0]} images but {data.labels.shape[0]} labels"
            )
        if data.examples != self.examples_used:
            raise UserError(
                f"{self.name}: examples_used is {self.examples_used}, the data have {data.examples} examples"
            )
        if data.examples < 2:
            raise UserError(f"{self.name}: at least 2 examples are needed, examples_used is {data.examples}")
        if self.kind != "regression" and data.classes < 2:
            raise UserError(f"{self.name}: at least 2 classes are needed, {self.data} has {data.classes}")
        counts = [int(self.count(index, data)) for index in range(self.num_tasks)]
        if min(counts) < self.batch_size:
            raise UserError(
                f"{self.name}: batch_size must be at most the examples of every task, got {self.batch_size}; "
                f"task {counts.index(min(counts))} has {min(counts)}"
            )

    def example(self, data: Images) -> jax.Array:
        return data.inputs(jnp.zeros((1,), jnp.int32))

    def init(self, key: jax.Array, data: Images) -> State:
        state = super().init(key, data)
        order = jnp.arange(data.examples, dtype=jnp.int32)
        mask = self.active(state.current, jnp.int32(0), data)
        if mask is None:
            return state._replace(place=Order(order))
        order = _first(order, mask)
        return state._replace(place=Order(order, order))

    def advance(self, state: State, key: jax.Array, index: jax.Array, data: Images) -> State:
        state = super().advance(state, key, index, data)
        mask = self.active(state.current, index, data)
        if mask is None:
            return state
        before = self.active(state.previous, index - 1, data)
        assert before is not None, "a member says which examples are there in all tasks or in none"
        # Not the order of the last epoch: how far a run went in the task before decides about nothing here.
        every = jnp.arange(data.examples, dtype=jnp.int32)
        return state._replace(place=Order(_first(every, mask), _first(every, before)))

    def batch(
        self, state: State, key: jax.Array, step: jax.Array, index: jax.Array, data: Images
    ) -> tuple[State, Batch]:
        """Update `step` of task `index`: batches run through the task's examples, in a new order each epoch."""
        per_epoch = self.per_epoch(index, data)

        def shuffled() -> jax.Array:
            order = jax.random.permutation(jax.random.fold_in(key, 0), jnp.arange(data.examples, dtype=jnp.int32))
            mask = self.active(state.current, index, data)
            return order if mask is None else _first(order, mask)

        order = jax.lax.cond(step % per_epoch == 0, shuffled, lambda: state.place.now)
        start = (step % per_epoch) * self.batch_size
        indices = jax.lax.dynamic_slice_in_dim(order, start, self.batch_size)
        before = state.place.before

        def old() -> Batch:
            if isinstance(before, tuple):  # all examples are in every task
                return self.examples(state.previous, indices, data)
            there = jnp.maximum(self.count(jnp.maximum(index - 1, 0), data), 1)
            places = jax.random.randint(jax.random.fold_in(key, 2), (self.batch_size,), 0, there)
            return self.examples(state.previous, before[places], data)

        interpolate = self.kind == "regression" and isinstance(before, tuple) and not self.moves_inputs
        length = self.length(index, data)
        batch = self.smeared(self.examples(state.current, indices, data), old, step, key, length, interpolate)
        return state._replace(place=state.place._replace(now=order)), batch

    def sample(self, context: Any, key: jax.Array, count: int, index: jax.Array, data: Images) -> Batch:
        mask = self.active(context, index, data)
        places = jax.random.randint(key, (count,), 0, self.count(index, data))
        indices = places if mask is None else _members(mask[: data.examples], data.examples)[places]
        return self.examples(context, indices, data)

    def fixed(self, state: State, index: jax.Array, count: int, data: Images) -> Batch:
        mask = self.active(state.current, index, data)
        indices = jnp.arange(min(count, data.examples))
        if mask is not None:
            indices = _members(mask[: data.examples], len(indices))[indices % self.count(index, data)]
        return self.examples(state.current, indices, data)

    def evaluation(self, state: State, index: jax.Array, limit: int, data: Images) -> Batch:
        mask = self.active(state.current, index, data)
        indices = jnp.arange(min(limit, data.examples))
        if mask is None:
            return self.examples(state.current, indices, data)
        there = (indices < self.count(index, data)).astype(jnp.float32)
        indices = _members(mask[: data.examples], len(indices))
        return self.examples(state.current, indices, data)._replace(weight=there)

    def tested(self, state: State, index: jax.Array, limit: int, data: Images) -> Batch | None:
        if not data.held_out:
            return None
        indices = data.examples + jnp.arange(min(limit, data.held_out))
        batch = self.examples(state.current, indices, data)
        mask = self.active(state.current, index, data)
        return batch if mask is None else batch._replace(weight=mask[indices].astype(jnp.float32))


def _first(order: jax.Array, mask: jax.Array) -> jax.Array:
    """The examples of the mask before all others, each side in the order it had."""
    # Places are counted rather than sorted, which is ten times as fast.
    there = mask[order]
    before = jnp.cumsum(there)
    place = jnp.where(there, before - 1, before[-1] + jnp.arange(len(order)) - before)
    return jnp.zeros_like(order).at[place].set(order, unique_indices=True)


def _members(mask: jax.Array, count: int) -> jax.Array:
    """The numbers of the first `count` examples in a mask, ascending; 0 where there are no more."""
    return jnp.nonzero(mask, size=count, fill_value=0)[0]
