"""A recorded stream in its own order: each row is predicted before it is learned from, and drift is the world's.

Task t is the t-th stretch of `steps` batches; nothing is changed at a switch, it only divides the record. Features are
standardised by the first stretch's mean and deviation, so that nothing later is looked at. order=shuffled shuffles the
rows once: the same examples without drift, as a control.

Beside the network's online accuracy stands what needs none: `baseline_repeat_last`, the accuracy of predicting the
label of the row before. Labels of natural streams are so correlated in time that it is hard to beat: .853 on Elec2,
.951 on covertype, .680 on the NOAA weather data. A network that sees the features only may well stay below it.

Data: `sea`, a synthetic stream that is always there (Street & Kim 2001, KDD: three features, label f1 + f2 <= theta
with theta 8, 9, 7, 9.5 in four equal blocks and 10 % noise, so the optimum is .9); `elec2`, `weather` and `covertype`
where they are installed; or a file of the user's: csv, npz, parquet. Chance: the share of the largest class.

With `transition`, rows of the stretch before, drawn at random, are mixed in with a share that falls to 0.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.config import static
from plasticity.errors import UserError
from tasks.base import Batch, Problem, State, Task, tasks
from tasks.data import load_series
from tasks.data.sets import Series


class Scaling(NamedTuple):
    """mean, deviation: `[features]` of the first stretch; order: `[rows]`, that in which the rows are read."""

    mean: jax.Array
    deviation: jax.Array
    order: jax.Array


@tasks.register("natural_stream")
class NaturalStream(Task):
    """Classify a recorded stream in its own order, beside the baseline that repeats the last label.

    Task t is rows t * steps * batch_size and on. Nothing is re-drawn at a switch: it divides the record, so that
    drift, if there is any, is the world's. `order=shuffled` is the control without drift.
    """

    reference: ClassVar[str] = "Street & Kim 2001 (sea); Harries 1999 (Elec2); as streams e.g. Elsayed & Mahmood 2024"
    kind = "classification"
    score_label: ClassVar[str] = "accuracy"
    levels: ClassVar[str] = "chance: share of the largest class; beside it the accuracy of repeating the last label"
    protocols: ClassVar[dict[str, str]] = {
        "elec2": "natural_stream(elec2, steps=1000, num_tasks=45, batch_size=1)",
        "weather": "natural_stream(weather, steps=1000, num_tasks=18, batch_size=1)",
        "covertype": "natural_stream(covertype, steps=5000, num_tasks=116, batch_size=1)",
    }

    data: str = static("sea", positional=True, help="sea, elec2, weather, covertype, or the path of a file")
    order: str = static("time", choices=("time", "shuffled"), help="shuffled: the control without drift")
    steps: int = static(1000, ge=1, unit="updates", help="updates per task")
    num_tasks: int = static(60, ge=1, unit="tasks", help="tasks in the stream")
    batch_size: int = static(1, ge=1, unit="examples", help="examples per update")

    @property
    def _rows(self) -> int:
        return self.steps * self.num_tasks * self.batch_size

    def load(self) -> Series:
        data = load_series(self.data, self._rows)
        self.check(data)
        return data

    def check(self, data: Series) -> None:
        """Raise `UserError` if the record is too short or has one class."""
        if len(data.labels) < self._rows:
            raise UserError(
                f"{self.name}: steps * num_tasks * batch_size rows are needed, {self._rows}; "
                f"{self.data} has {len(data.labels)}"
            )
        if data.classes < 2:
            raise UserError(f"{self.name}: at least 2 classes are needed, {self.data} has {data.classes}")

    def problem(self, data: Series) -> Problem:
        return Problem("classification", data.classes, (0.0, 0.0), data.majority)

    def example(self, data: Series) -> jax.Array:
        return data.features[:1]

    def first(self, key: jax.Array, data: Series) -> Scaling:
        order = jnp.arange(self._rows, dtype=jnp.int32)
        if self.order == "shuffled":
            order = jax.random.permutation(key, order)
        stretch = data.features[order[: self.steps * self.batch_size]]
        # A feature that does not vary in the first stretch keeps its own scale; its deviation is a speck of rounding.
        varies = jnp.max(stretch, axis=0) > jnp.min(stretch, axis=0)
        return Scaling(jnp.mean(stretch, axis=0), jnp.where(varies, jnp.std(stretch, axis=0), 1.0), order)

    def following(self, context: Scaling, key: jax.Array, index: jax.Array, data: Series) -> Scaling:
        return context

    def _examples(self, context: Scaling, places: jax.Array, data: Series) -> Batch:
        rows = context.order[places]
        return Batch((data.features[rows] - context.mean) / context.deviation, data.labels[rows])

    def batch(
        self, state: State, key: jax.Array, step: jax.Array, index: jax.Array, data: Series
    ) -> tuple[State, Batch]:
        start = (index * self.steps + step) * self.batch_size
        new = self._examples(state.current, start + jnp.arange(self.batch_size), data)

        def old() -> Batch:
            before = jnp.maximum(index - 1, 0)
            return self.sample(state.previous, jax.random.fold_in(key, 2), self.batch_size, before, data)

        return state, self.smeared(new, old, step, key, self.steps)

    def sample(self, context: Scaling, key: jax.Array, count: int, index: jax.Array, data: Series) -> Batch:
        stretch = self.steps * self.batch_size
        return self._examples(context, index * stretch + jax.random.randint(key, (count,), 0, stretch), data)

    def fixed(self, state: State, index: jax.Array, count: int, data: Series) -> Batch:
        """The last rows of the stretch."""
        stretch = self.steps * self.batch_size
        count = min(count, stretch)
        return self._examples(state.current, (index + 1) * stretch - count + jnp.arange(count), data)

    def baselines(self, state: State, index: jax.Array, data: Series) -> dict[str, jax.Array]:
        stretch = self.steps * self.batch_size
        labels = data.labels[state.current.order]
        own = jax.lax.dynamic_slice_in_dim(labels, index * stretch, stretch)
        # The very first row has none before it, and counts as missed.
        before = jax.lax.dynamic_slice_in_dim(jnp.concatenate([jnp.array([-1]), labels]), index * stretch, stretch)
        return {"repeat_last": jnp.mean(own == before)}
