"""Regression whose targets drift in mean, scale and phase from task to task.

    y_t(x) = offset_t + scale_t * e_t(x),   e_t(x) = sin(frequency * f_t(x) + phase * t)

with f_t a random function of mean 0 and variance 1 over the examples (`_random_function`), and, for task t = 0, 1, ...

- growth:       offset_t = offset * t,                    scale_t = 1 + scale * t
- sinusoid:     offset_t = offset * sin(2π t / period),   scale_t = 1 + scale * sin(2π t / period)
- cyclic:       as growth with t mod period in place of t, also in the phase; f repeats as well: task t is task
  t mod period again
- random_walk:  offset_t = offset * w_t,                  scale_t = exp(scale * v_t),
  w_t and v_t walks from 0 of independent N(0, 1) steps, held within ±3 * sqrt(num_tasks - 1) (three standard
  deviations of their last position; about one run in 100 touches it)
- abrupt:       the same with w_t and v_t drawn afresh at every switch, uniform in [-1, 1]; 0 in the first task

At a switch the share `redraw` of e is new: e_t and e_{t-1} have correlation 1 - redraw (in expectation, for Gaussian
f, but for the phase). The mix is one of functions, inside the sine, and so leaves e as hard to fit as it was. With
redraw = 0 and a phase the targets rotate: all of f stays, and e_t = cos(phase * t) e_0 + sin(phase * t) e', where e' is
the cosine that belongs to e_0. (The mean of e, over Gaussian f, is sin(phase * t) exp(-frequency^2 / 2): .01 at most
for the default frequency.)

Source: growing and drifting targets as a cause of plasticity loss, Lyle et al. 2024 (arXiv:2402.18762), sections 3 and
4, whose exact schedules are not published: those here are this suite's. Random walks, abrupt and cyclic changes are
those of the linear streams of online learning, with tasks in place of steps. The form of e: Lyle et al. 2023
(arXiv:2303.01486). Optimum: explained variance 1. Chance: 0.
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
    """f, targets: float32 `[examples]`; walk: `[2]`, w and v; seed: of the functions that return, uint32, or ()."""

    f: jax.Array
    walk: jax.Array
    targets: jax.Array
    seed: Any = ()


@tasks.register("target_drift")
class TargetDrift(ExampleTask):
    """Regression targets y_t(x) = offset_t + scale_t * e_t(x) whose mean, scale and phase drift from task to task.

    e_t(x) = sin(frequency * f_t(x) + phase * t) with f_t a random two-layer network, of variance 1 over the examples.
    With task t = 0, 1, ...:

    - growth: offset_t = offset * t, scale_t = 1 + scale * t.
    - sinusoid: offset_t = offset * sin(2π t / period), scale_t = 1 + scale * sin(2π t / period).
    - cyclic: growth, and all else, with t mod period in place of t.
    - random_walk: offset_t = offset * w_t, scale_t = exp(scale * v_t), with w, v walks of N(0, 1) steps held within
      ±3 * sqrt(num_tasks - 1).
    - abrupt: the same with w, v uniform in [-1, 1] and independent from task to task.

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
        choices=("growth", "sinusoid", "cyclic", "random_walk", "abrupt"),
        positional=True,
        help="how offset and scale move",
    )
    offset: float = traced(1.0, ge=0, help="change of the targets' mean per task (sinusoid, abrupt: its amplitude)")
    scale: float = traced(0.0, ge=0, help="change of the targets' scale per task (sinusoid, abrupt: its amplitude)")
    redraw: float = traced(1.0, ge=0, le=1, help="share of the target function that is new at a switch")
    phase: float = traced(0.0, ge=0, unit="radians", help="by which the target function rotates at each switch")
    period: int = static(10, ge=2, unit="tasks", help="period of sinusoid and cyclic")
    frequency: float = traced(3.0, gt=0, unit="radians", help="radians of the sine per standard deviation of f")

    def problem(self, data: Images) -> Problem:
        """`target_range` is exact (|e| <= 1) for growth, sinusoid and cyclic; else for the bounds of w and v."""
        if self.drift in ("random_walk", "abrupt"):
            bound = self._bound if self.drift == "random_walk" else 1.0
            # numpy on numbers, jax on tracers: a plain config has a plain range.
            exp = np.exp if isinstance(self.scale, int | float) else jnp.exp
            reach = self.offset * bound + exp(self.scale * bound)
            return Problem("regression", 0, (-reach, reach), 0.0)
        position = self._position(np.arange(self.num_tasks), np.sin)
        offset, half = self.offset * position, abs(1 + self.scale * position)
        return Problem("regression", 0, ((offset - half).min(), (offset + half).max()), 0.0)

    @property
    def _bound(self) -> float:
        return 3 * (self.num_tasks - 1) ** 0.5

    def _turn(self, index: Any) -> Any:
        """The task that task `index` is like."""
        return index % self.period if self.drift == "cyclic" else index

    def _position(self, index: Any, sin: Any) -> Any:
        """What offset and scale are multiplied with, where that is no accident."""
        return sin(2 * math.pi * index / self.period) if self.drift == "sinusoid" else self._turn(index)

    def _context(self, f: jax.Array, walk: jax.Array, index: jax.Array, seed: Any) -> Drift:
        if self.drift in ("random_walk", "abrupt"):
            offset, scale = self.offset * walk[0], jnp.exp(self.scale * walk[1])
        else:
            position = self._position(index, jnp.sin)
            offset, scale = self.offset * position, 1 + self.scale * position
        e = wave(f, self.frequency, self.phase * self._turn(index))
        return Drift(f, walk, offset + scale * e, seed)

    def first(self, key: jax.Array, data: Images) -> Drift:
        seed = jax.random.key_data(key) if self.drift == "cyclic" else ()
        return self._context(draw(key, data), jnp.zeros(2), jnp.zeros((), jnp.int32), seed)

    def following(self, context: Drift, key: jax.Array, index: jax.Array, data: Images) -> Drift:
        key_f, key_walk = jax.random.split(key)
        f, walk = context.f, context.walk
        if self.drift == "cyclic":
            start, turn = jax.random.wrap_key_data(context.seed), self._turn(index)
            key_f = jax.random.fold_in(start, turn)
            f = jax.lax.cond(turn == 0, lambda: draw(start, data), lambda: self._renewed(f, key_f, data))
        else:
            f = self._renewed(f, key_f, data)
        if self.drift == "random_walk":
            walk = jnp.clip(walk + jax.random.normal(key_walk, (2,)), -self._bound, self._bound)
        elif self.drift == "abrupt":
            walk = jax.random.uniform(key_walk, (2,), minval=-1.0, maxval=1.0)
        return self._context(f, walk, index, context.seed)

    def _renewed(self, f: jax.Array, key: jax.Array, data: Images) -> jax.Array:
        return renewed(f, key, self.redraw, self.frequency, data)

    def examples(self, context: Drift, indices: jax.Array, data: Images) -> Batch:
        return Batch(data.inputs(indices), context.targets[indices])
