"""Regression onto targets with a large mean: the stationary control for the size of the targets.

    y_t(x) = offset + e(x)            for the first `pretrain` tasks: one e, no change at these switches
    y_t(x) = carry · offset + e_t(x)  after that: a fresh e_t at each switch

e(x) = sin(frequency · f(x)) with f a random function of mean 0 and variance 1 over the examples
(`_random_function`). carry = 1 keeps the mean for the new targets, carry = 0 takes it away. As the
pretraining is stationary, whatever it does to trainability comes from the size of the targets and not from
their change.

Source: Lyle et al. 2024, "Disentangling the causes of plasticity loss" (arXiv:2402.18762), section 3.1,
figure 1 and appendix E; e in the form of Lyle et al. 2023 (arXiv:2303.01486), there a + sin(1e5 · f(x; w0)).
The paper's grid of offsets is unknown, its study of singular values uses 100 and 0. Optimum: explained
variance 1. Chance: 0.
"""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp

from plasticity.config import static, traced
from tasks.base import Batch, Problem, tasks
from tasks.data.sets import Images
from tasks.examples import ExampleTask
from tasks.streams._random_function import draw, wave


@tasks.register("offset_regression")
class OffsetRegression(ExampleTask):
    """Regression targets offset + e(x), constant for `pretrain` tasks, then a fresh e at every switch.

    e(x) = sin(frequency · f(x)) with f a random two-layer network, of variance 1 over the examples. After the
    first `pretrain` tasks the mean is carry · offset. The optimum is explained variance 1, chance is 0.
    """

    reference: ClassVar[str] = "Lyle et al. 2024, arXiv:2402.18762, section 3.1, figure 1 and appendix E"
    kind = "regression"
    generalizes: ClassVar[bool] = False
    score_label: ClassVar[str] = "explained variance"
    levels: ClassVar[str] = "chance 0; optimum 1"

    offset: float = traced(10.0, positional=True, help="mean of the pretraining targets; e itself is within ±1")
    pretrain: int = static(10, ge=1, unit="tasks", help="tasks with one and the same target, before the fresh ones")
    carry: float = traced(1.0, ge=0, le=1, help="share of the offset that the fresh targets keep")
    frequency: float = traced(3.0, gt=0, unit="radians", help="radians of the sine per standard deviation of f")

    def problem(self, data: Images) -> Problem:
        """`target_range` is exact: |e| <= 1 around the one or two means of the stream."""
        before, after = self.offset, self.carry * self.offset
        if self.num_tasks <= self.pretrain:
            return Problem("regression", 0, (before - 1, before + 1), 0.0)
        # numpy on numbers, jax on tracers: a plain config has a plain range.
        if isinstance(before, int | float) and isinstance(after, int | float):
            low, high = min(before, after), max(before, after)
        else:
            low, high = jnp.minimum(before, after), jnp.maximum(before, after)
        return Problem("regression", 0, (low - 1, high + 1), 0.0)

    def first(self, key: jax.Array, data: Images) -> jax.Array:
        """Targets, float32 `[examples]`."""
        return self.offset + wave(draw(key, data), self.frequency)

    def following(self, context: jax.Array, key: jax.Array, index: jax.Array, data: Images) -> jax.Array:
        def fresh(_: jax.Array) -> jax.Array:
            return self.carry * self.offset + wave(draw(key, data), self.frequency)

        return jax.lax.cond(index < self.pretrain, lambda targets: targets, fresh, context)

    def examples(self, context: jax.Array, indices: jax.Array, data: Images) -> Batch:
        return Batch(data.inputs(indices), context[indices])
