"""Regression whose targets drift in mean and scale from task to task.

    y_t(x) = offset_t + scale_t · e_t(x),   e_t(x) = sin(frequency · f_t(x))

with f_t a random function of mean 0 and variance 1 over the examples (`_random_function`), and, for task t =
0, 1, ...

- growth:       offset_t = offset · t,                    scale_t = 1 + scale · t
- sinusoid:     offset_t = offset · sin(2π t / period),   scale_t = 1 + scale · sin(2π t / period)
- random_walk:  offset_t = offset · w_t,                  scale_t = exp(scale · v_t),
  w_t and v_t walks from 0 of independent N(0, 1) steps, held within ±3 · sqrt(num_tasks - 1) (three standard
  deviations of their last position; about one run in 100 touches it).

At a switch the share `redraw` of e is new: e_t and e_{t-1} have correlation 1 - redraw (in expectation, for
Gaussian f). The mix is one of functions, inside the sine, and so leaves e as hard to fit as it was.

Source: growing and drifting targets as a cause of plasticity loss, Lyle et al. 2024 (arXiv:2402.18762),
sections 3 and 4, whose exact schedules are not published: those here are this suite's. The form of e: Lyle et
al. 2023 (arXiv:2303.01486). Optimum: explained variance 1. Chance: 0.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.config import static, traced
from tasks.base import Batch, Problem, tasks
from tasks.data.sets import Images
from tasks.examples import ExampleTask
from tasks.streams._random_function import draw, renewed, wave


class Drift(NamedTuple):
    """f, targets: float32 `[examples]`; walk: `[2]`, the positions of the walks of offset and log scale."""

    f: jax.Array
    walk: jax.Array
    targets: jax.Array


@tasks.register("target_drift")
class TargetDrift(ExampleTask):
    """Regression targets y_t(x) = offset_t + scale_t · e_t(x) whose mean and scale drift from task to task.

    e_t(x) = sin(frequency · f_t(x)) with f_t a random two-layer network, of variance 1 over the examples.
    With task t = 0, 1, ...:

    - growth: offset_t = offset · t, scale_t = 1 + scale · t.
    - sinusoid: offset_t = offset · sin(2π t / period), scale_t = 1 + scale · sin(2π t / period).
    - random_walk: offset_t = offset · w_t, scale_t = exp(scale · v_t), with w, v walks of N(0, 1) steps held
      within ±3 · sqrt(num_tasks - 1).

    At a switch e keeps a correlation of 1 - redraw with the e before.
    Optimum: explained variance 1. Chance: 0.
    """

    reference: ClassVar[str] = "Lyle et al. 2024, arXiv:2402.18762 (targets that grow); schedules of this suite"
    kind = "regression"
    generalizes: ClassVar[bool] = False
    score_label: ClassVar[str] = "explained variance"
    levels: ClassVar[str] = "chance 0; optimum 1"

    drift: str = static(
        "growth",
        choices=("growth", "sinusoid", "random_walk"),
        positional=True,
        help="how offset and scale move",
    )
    offset: float = traced(1.0, ge=0, help="change of the targets' mean per task (sinusoid: its amplitude)")
    scale: float = traced(0.0, ge=0, help="change of the targets' scale per task (sinusoid: its amplitude)")
    redraw: float = traced(1.0, ge=0, le=1, help="share of the target function that is new at a switch")
    period: int = static(10, ge=2, unit="tasks", help="period of the sinusoid")
    frequency: float = traced(3.0, gt=0, unit="radians", help="radians of the sine per standard deviation of f")

    def problem(self, data: Images) -> Problem:
        """`target_range` is exact (|e| <= 1) for growth and sinusoid; for random_walk the walks' bound."""
        t = np.arange(self.num_tasks)
        if self.drift == "random_walk":
            # numpy on numbers, jax on tracers: a plain config has a plain range.
            exp = np.exp if isinstance(self.scale, int | float) else jnp.exp
            reach = self.offset * self._bound + exp(self.scale * self._bound)
            return Problem("regression", 0, (-reach, reach), 0.0)
        position = t if self.drift == "growth" else np.sin(2 * math.pi * t / self.period)
        offset, half = self.offset * position, abs(1 + self.scale * position)
        return Problem("regression", 0, ((offset - half).min(), (offset + half).max()), 0.0)

    @property
    def _bound(self) -> float:
        return 3 * (self.num_tasks - 1) ** 0.5

    def _offset_scale(self, walk: jax.Array, index: jax.Array) -> tuple[Any, Any]:
        if self.drift == "random_walk":
            return self.offset * walk[0], jnp.exp(self.scale * walk[1])
        position = index if self.drift == "growth" else jnp.sin(2 * math.pi * index / self.period)
        return self.offset * position, 1 + self.scale * position

    def _context(self, f: jax.Array, walk: jax.Array, index: jax.Array) -> Drift:
        offset, scale = self._offset_scale(walk, index)
        return Drift(f, walk, offset + scale * wave(f, self.frequency))

    def first(self, key: jax.Array, data: Images) -> Drift:
        return self._context(draw(key, data), jnp.zeros(2), jnp.zeros((), jnp.int32))

    def following(self, context: Drift, key: jax.Array, index: jax.Array, data: Images) -> Drift:
        key_f, key_walk = jax.random.split(key)
        f = renewed(context.f, key_f, self.redraw, self.frequency, data)
        walk = jnp.clip(context.walk + jax.random.normal(key_walk, (2,)), -self._bound, self._bound)
        return self._context(f, walk, index)

    def examples(self, context: Drift, indices: jax.Array, data: Images) -> Batch:
        return Batch(data.inputs(indices), context.targets[indices])
