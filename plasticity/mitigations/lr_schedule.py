"""A learning rate that follows one schedule in every task, and so starts anew at each switch.

Published protocols of many stages have one: class-incremental CIFAR-100 of Dohare et al. 2024 (Nature 632) begins each
stage of 200 epochs at the full rate and multiplies it by .2 at epochs 60, 120 and 160; Lee et al. 2024
(arXiv:2406.02596) warm up over the first tenth of a stage.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax

from plasticity.config import static, traced
from plasticity.errors import UserError
from plasticity.mitigations.base import Mitigation, Setting, mitigations

SHAPES = ("constant", "cosine", "linear", "steps")
MILESTONES = "0.3 0.6 0.8"
#: The share of a task is a rounded quotient; a milestone is passed also where it comes out below by as much.
ROUNDING = 1e-6


@mitigations.register("lr_schedule")
class LRSchedule(Mitigation):
    """The optimiser's step is multiplied by s(e), e in [0, 1) the share of the current task that has passed.

    With d = (e - warmup) / (1 - warmup), the share that has passed of what follows the warm-up: constant: s = 1;
    cosine: s = final + (1 - final) (1 + cos(pi d)) / 2; linear: s = 1 - (1 - final) d; steps: s = factor^n, n the
    number of milestones <= e, shares of the whole task (the defaults are those of Dohare et al.).

    While e < warmup, s is e / warmup, times factor^n with steps, so the first update of a task has rate 0. s changes
    from update to update, where published schedules often change it from epoch to epoch.

    Multiplied is the update with its momentum and with decoupled decay, as in PyTorch: theta <- theta - s lr (m + decay
    theta); the velocity m knows nothing of s. So are the noise of `noisy_decay` and the steps of `soft_shrink_perturb`,
    although their sources do not multiply them by a rate. Not multiplied is what stands outside: projections, the decay
    of norm scales in `nap` (deviation), averages, resets and events. `trac` tunes the steps as they are scheduled.
    Effective learning rates among the diagnostics, and the trainability probe, are those of the full rate.

    Where a task may end early, e is the share of its limit. An agent's task is its stay in a game of a sequence, or
    with one game the whole run, counted in frames, those that first fill the replay included. A loop of one's own
    passes `elapsed=` to `update`.
    """

    reference = "Dohare et al. 2024, Nature 632 (steps); Lee et al. 2024, arXiv:2406.02596 (warm-up .1)"
    # Around decay, which the rate multiplies; inside projections and resets, which it does not.
    stage = "step"
    padded = True

    shape: str = static("cosine", choices=SHAPES, positional=True, help="of the rate over a task")
    warmup: float = traced(0.0, ge=0, le=1, help="share of a task in which the rate grows from 0")
    milestones: str = static(MILESTONES, help="of steps: shares of a task, with spaces between")
    factor: float = traced(0.2, ge=0, help="on the rate at each milestone")
    final: float = traced(0.0, ge=0, le=1, help="of cosine and linear: share of the rate at a task's end")

    def validate(self) -> None:
        if self.shape != "steps":
            if self.milestones != MILESTONES:
                raise UserError(
                    f"lr_schedule: milestones={self.milestones!r} are for shape=steps, and shape is {self.shape}"
                )
            return
        try:
            points = [0.0, *self._milestones(), 1.0]
        except ValueError:
            points = [0.0]
        if len(points) < 3 or any(not a < b for a, b in pairwise(points)):
            raise UserError(
                "lr_schedule: shape=steps needs milestones that are increasing shares of a task between 0 and 1, with "
                f"spaces between, such as {MILESTONES!r}; got {self.milestones!r}"
            )

    def _milestones(self) -> list[float]:
        return [float(word) for word in self.milestones.split()]

    def neutral(self) -> Self:
        return type(self)(self.shape, warmup=0.0, milestones=self.milestones, factor=1.0, final=1.0)

    def multiplier(self, elapsed: Any) -> jax.Array:
        """s at the share `elapsed` of a task."""
        e = jnp.clip(jnp.asarray(elapsed, jnp.float32), 0.0, 1.0)
        rest = jnp.maximum(1.0 - jnp.asarray(self.warmup), 1e-12)
        d = jnp.clip((e - self.warmup) / rest, 0.0, 1.0)
        s = jnp.ones_like(e)
        if self.shape == "cosine":
            s = self.final + (1 - self.final) * (1 + jnp.cos(jnp.pi * d)) / 2
        elif self.shape == "linear":
            s = 1 - (1 - self.final) * d
        elif self.shape == "steps":
            for milestone in self._milestones():
                s = s * jnp.where(e >= milestone - ROUNDING, self.factor, 1.0)
        # Without a warm-up the quotient is not looked at.
        ramp = e / jnp.maximum(jnp.asarray(self.warmup), 1e-12)
        return jnp.where(e < self.warmup, ramp * s, s)

    def optimizer(
        self, tx: optax.GradientTransformationExtraArgs, setting: Setting
    ) -> optax.GradientTransformationExtraArgs:
        def update(updates: Any, state: Any, params: Any = None, *, elapsed: Any = None, **extra: Any):
            if elapsed is None:
                raise UserError(
                    f"{self.name}: update(...) needs elapsed=, the share of the current task that has passed, from 0 "
                    "to 1, which this loop does not give: pass updates so far in the task / updates of the task"
                )
            if isinstance(elapsed, int | float) and not 0 <= elapsed <= 1:
                raise UserError(f"{self.name}: elapsed must be the share of a task, from 0 to 1, got {elapsed}")
            updates, state = tx.update(updates, state, params, elapsed=elapsed, **extra)
            s = self.multiplier(elapsed)
            return jax.tree.map(lambda u: s.astype(u.dtype) * u, updates), state

        return optax.GradientTransformationExtraArgs(tx.init, update)
