"""Hare and Tortoise (Lee et al. 2024, arXiv:2406.02596)."""

from __future__ import annotations

from typing import Self

import jax
import jax.numpy as jnp
import optax

from plasticity.config import static, traced
from plasticity.mitigations.base import Mitigation, Setting, mitigations
from plasticity.mitigations.wrapping import Step, around
from plasticity.network import Params


@mitigations.register("hare_tortoise")
class HareTortoise(Mitigation):
    """A slow copy follows the trained network, which is put back to it every `every` updates.

    slow <- average slow + (1 - average) fast after each update, then every `every` updates fast <- slow, all parameters
    alike; the optimiser's moments stay. The source resets every 10 epochs of a task; `every` in updates is this suite's
    default. What is trained, measured and acts is the fast network. An entry that a reset overwrites is overwritten in
    the slow copy as well. An event that changes parameters (`shrink_perturb`) changes the fast network only, unless it
    renews the optimiser's state: the next return undoes most of it. average = 0 is absence: slow is fast.
    """

    reference = "Lee et al. 2024, arXiv:2406.02596 (average .999)"
    stage = "average"
    cost = "an average of the parameters"

    average: float = traced(0.999, ge=0, le=1, positional=True, help="decay of the slow copy")
    every: int = static(1000, ge=1, unit="updates", help="period of the return to the slow copy")

    def neutral(self) -> Self:
        return type(self)(average=0.0, every=self.every)

    def optimizer(
        self, tx: optax.GradientTransformationExtraArgs, setting: Setting
    ) -> optax.GradientTransformationExtraArgs:
        def start(params: Params) -> Params:
            # Of its own: a loop may donate the parameters' buffers and the state's.
            return jax.tree.map(jnp.copy, params)

        def after(step: Step, slow: Params) -> tuple[Params, Params]:
            fast = step.stepped
            slow = jax.tree.map(lambda s, f: self.average * s + (1 - self.average) * f, slow, fast)
            due = step.number % self.every == 0
            updates = jax.tree.map(lambda u, s, f: jnp.where(due, u + (s - f), u), step.updates, slow, fast)
            return updates, slow

        return around(tx, setting, after=after, start=start)
