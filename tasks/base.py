"""The task contract: a nonstationary supervised stream as pure functions of keys.

A task stream is a sequence of `num_tasks` tasks of `steps` updates each. What changes at a switch is the *context* (a
labelling, a permutation, an offset, the classes that are there ...). A member of the family says what it stands on
(`load`), what a network must be built for (`problem`, `example`), how the first context is drawn (`first`), how the
next follows (`following`), and what a batch is under one (`sample`); how a run goes through them is here:

- `init(key, data) -> state`, `advance(state, key, index, data) -> state`, the switch to task `index`,
- `batch(state, key, step, index, data) -> (state, Batch)`, what update `step` of task `index` sees,
- `some`, `fixed`, `evaluation`, `tested`: other batches of the task as it is now,
- `baselines(state, index, data)`: scores in task `index` that need no network.

`transition` is the smoothness of the switch: over the first `transition * steps` updates of a task the share of the new
context rises linearly from 0 to 1. Examples come from the old or the new context; targets of regression on the same
inputs are interpolated. 0 is an abrupt switch.

Most members stand on a fixed set of examples, see `tasks.examples`. `index` and `step` (0-based, `step` within the
task) must not be batched, so that the rare work stays behind a branch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.config import Config, config, static, traced
from plasticity.registry import Family

Kind = Literal["classification", "regression", "values"]


class Batch(NamedTuple):
    """x: `[batch, ...]`, float32 or tokens int32; y: int32 class labels or float32 targets `[batch]`, labels of every
    position `[batch, positions]`, or a `Transition` of such arrays. weight: of each example in a mean, None for equal.
    classes: which may be said of each example, bool `[batch, classes]`, None for all.
    """

    x: jax.Array
    y: Any
    weight: jax.Array | None = None
    classes: jax.Array | None = None


class Transition(NamedTuple):
    """What value learning sees of a step: action taken, reward, discount of what follows, the next observation; and the
    best action, by which a policy is scored. Each `[batch, ...]`."""

    action: jax.Array
    reward: jax.Array
    discount: jax.Array
    next_x: jax.Array
    best: jax.Array


class Problem(NamedTuple):
    """What a network must be built for. `target_range`: lowest and highest regression target over the whole
    stream (stated, not measured); `chance`: the score of an input-blind prediction; `actions`: of value learning."""

    kind: Kind
    classes: int
    target_range: tuple[Any, Any]
    chance: float
    actions: int = 1


class Stop(NamedTuple):
    """A run rests for the remainder of a task once its score, averaged over `updates` updates, is at least `score`."""

    score: float
    updates: Any


class State(NamedTuple):
    """place: what batches run through; previous, current: contexts."""

    place: Any
    previous: Any
    current: Any


@config
class Task(Config):
    """Dials that every task has."""

    name: ClassVar[str]
    reference: ClassVar[str] = ""
    kind: ClassVar[Kind]
    #: What the score of this task is, for axis labels.
    score_label: ClassVar[str]
    #: Chance level and optimum of the score, in words.
    levels: ClassVar[str] = ""
    #: Published settings of the stream, by a name of their source: each the whole text of a task.
    protocols: ClassVar[dict[str, str]] = {}
    #: Whether there is a prediction at every position of an input, which takes a network for tokens.
    sequence: ClassVar[bool] = False
    #: Of regression: the online score is of all predictions in a task together, not the mean over batches. For batches
    #: too small to have a variance.
    pooled_score: ClassVar[bool] = False

    steps: int = static(400, ge=1, unit="updates", help="updates per task")
    num_tasks: int = static(30, ge=1, unit="tasks", help="tasks in the stream")
    batch_size: int = static(100, ge=1, unit="examples", help="examples per update")
    transition: float = traced(0.0, ge=0, le=1, help="share of a task over which the switch is smeared; 0 = abrupt")

    # What a member defines ----------------------------------------------------------------------------------

    def load(self) -> Any:
        """What the task stands on, checked against the config before any compute. `UserError` if they do not fit."""
        return ()

    def problem(self, data: Any) -> Problem:
        """The kind of problem, the number of classes, the stated target range and the chance level."""
        raise TypeError(f"task {self.name} states no problem")

    def example(self, data: Any) -> jax.Array:
        """One input `[1, ...]`, for its shape and type."""
        raise TypeError(f"task {self.name} has no example")

    def first(self, key: jax.Array, data: Any) -> Any:
        """The context of task 0."""
        raise TypeError(f"task {self.name} has no first context")

    def following(self, context: Any, key: jax.Array, index: jax.Array, data: Any) -> Any:
        """The context of task `index` (>= 1) after `context`."""
        raise TypeError(f"task {self.name} has no following context")

    def sample(self, context: Any, key: jax.Array, count: int, index: jax.Array, data: Any) -> Batch:
        """`count` random examples of task `index`, as they are under its context."""
        raise TypeError(f"task {self.name} has no examples")

    def length(self, index: Any, data: Any) -> Any:
        """Updates in task `index` (a number or traced). Must not depend on a key."""
        return self.steps

    def before(self, index: Any, data: Any) -> Any:
        """Updates in all tasks before `index`."""
        return index * self.steps

    def stop(self, index: Any, data: Any) -> Stop | None:
        """When a run has learned task `index` well enough, before its last update; None: never."""
        return None

    # What every task has ------------------------------------------------------------------------------------

    def init(self, key: jax.Array, data: Any) -> State:
        """The state at the start of task 0."""
        context = self.first(key, data)
        return State((), context, context)

    def advance(self, state: State, key: jax.Array, index: jax.Array, data: Any) -> State:
        """Switch to task `index`."""
        return State(state.place, state.current, self.following(state.current, key, index, data))

    def batch(self, state: State, key: jax.Array, step: jax.Array, index: jax.Array, data: Any) -> tuple[State, Batch]:
        """The batch of update `step` in task `index`, and the state after it."""
        new = self.sample(state.current, key, self.batch_size, index, data)

        def old() -> Batch:
            return self.sample(state.previous, jax.random.fold_in(key, 2), self.batch_size, index - 1, data)

        return state, self.smeared(new, old, step, key, self.length(index, data))

    def smeared(
        self,
        new: Batch,
        old: Callable[[], Batch],
        step: jax.Array,
        key: jax.Array,
        length: Any,
        interpolate: bool = False,
    ) -> Batch:
        """The new batch, or within the transition a mix with the old one: of examples, or of targets if interpolated.

        length: updates in the task. interpolate: both are of the same inputs, and y are numbers.
        """
        # At least one update, so that an abrupt switch (no update is inside the ramp) divides by no zero.
        ramp = self.transition * length
        share = step / jnp.maximum(ramp, 1.0)

        def mix(new: Batch) -> Batch:
            if interpolate:
                return new._replace(y=((1 - share) * old().y + share * new.y).astype(new.y.dtype))
            take = jax.random.bernoulli(jax.random.fold_in(key, 1), share, (self.batch_size,))
            return jax.tree.map(lambda a, b: jnp.where(take.reshape(-1, *[1] * (a.ndim - 1)), b, a), old(), new)

        return jax.lax.cond(step < ramp, mix, lambda new: new, new)

    def some(self, state: State, key: jax.Array, index: jax.Array, data: Any) -> Batch:
        """A random batch of the task as it is now, beside the stream's own."""
        return self.sample(state.current, key, self.batch_size, index, data)

    def fixed(self, state: State, index: jax.Array, count: int, data: Any) -> Batch:
        """At most `count` examples of the task as it is now, the same ones whenever they are asked for."""
        return self.sample(state.current, jax.random.key(0), count, index, data)

    def evaluation(self, state: State, index: jax.Array, limit: int, data: Any) -> Batch:
        """What the end of a task is judged by: at most `limit` of its examples."""
        return self.fixed(state, index, limit, data)

    def tested(self, state: State, index: jax.Array, limit: int, data: Any) -> Batch | None:
        """At most `limit` examples that are never trained on, as they are now; None if there are none."""
        return None

    def baselines(self, state: State, index: jax.Array, data: Any) -> dict[str, jax.Array]:
        """Scores in task `index` that need no network, by name."""
        return {}


tasks: Family[Task] = Family("task", "tasks.streams")
