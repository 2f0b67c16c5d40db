"""When a run is measured, and what is measured then.

Measurements are dense just after a switch and sparse later: after updates 1, 2, 4, 8, ... of a task and at its end.
The cheap set (units, norms, gradients, updates) is taken at each of these points: unit metrics on a fixed reference
batch, gradient and update metrics on the training batch of that very update, which costs no extra pass. Rank metrics
need a decomposition a layer, so they are taken at the end of every `ranks_every`-th task, on `reference` examples.

Curvature and kernels, and the trainability probe, are costly and off unless asked for. The former take 46 products with
the Hessian of the reference batch, each as long as about two updates on it, and inputs^2 inner products of gradients an
output; a probe trains two networks for `probe_updates`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from plasticity import curvature
from plasticity.config import Config, config, static
from plasticity.diagnostics import diagnose
from plasticity.diagnostics.sets import CHEAP, RANKS, named
from plasticity.heads import Head
from plasticity.mitigations.base import Setting
from plasticity.network import Params
from plasticity.optimizers.base import OptimizerConfig
from plasticity.probes import trainability
from tasks import objectives
from tasks.base import Batch

#: Diagnostics that are called on their own and that a run can take at the end of a task.
AT_THE_END = ("curvature_readings", "trainability")


@config
class Measure(Config):
    """The measuring schedule of a run; part of its config and so of its id."""

    name = "measure"

    points: str = static("dense", choices=("dense", "end", "off"), help="dense: after 1, 2, 4, ... updates; end; off")
    reference: int = static(256, ge=1, unit="examples", help="size of the reference batch")
    ranks_every: int = static(1, ge=0, unit="tasks", help="period of the rank metrics; 0 = never")
    also: str = static(
        "",
        help="further diagnostics at every point, names with spaces between; curvature_readings and trainability among "
        "them are taken at the end of every task, or as often as their period says",
    )

    probe_every: int = static(0, ge=0, unit="tasks", help="period of the trainability probe; 0 = never")
    probe_updates: int = static(200, ge=1, unit="updates", help="for which the probe trains a copy")
    curvature_every: int = static(0, ge=0, unit="tasks", help="period of curvature and kernels; 0 = never")
    curvature_inputs: int = static(64, ge=1, unit="examples", help="of the reference batch, for the kernels")

    def validate(self) -> None:
        self.further()

    def further(self) -> tuple[str, ...]:
        """The diagnostics of `diagnose` in `also`. Raises `UserError` for a name that does not exist."""
        return named(" ".join(name for name in self.also.replace(",", " ").split() if name not in AT_THE_END))

    def _period(self, name: str, every: int) -> int:
        """The period of what is taken at the end of a task: as set, or each task if it is in `also`."""
        return every or int(name in self.also.replace(",", " ").split())

    def updates(self, steps: int, longest: int | None = None) -> tuple[int, ...]:
        """The measuring points within a task of `steps` updates: ascending, ending with `steps`.

        `longest`, if given, is the furthest that two of them may lie apart.
        """
        dense = {1 << i for i in range(steps.bit_length())} if self.points == "dense" else set()
        sparse = set(range(longest, steps, longest)) if longest else set()
        return (*sorted(point for point in dense | sparse if point < steps), steps)

    def cheap(
        self,
        setting: Setting,
        variables: dict[str, Any],
        x: jax.Array,
        grads: Any,
        updates: Any,
        initial: Params,
    ) -> dict[str, jax.Array]:
        """The cheap set after an update, as a flat mapping `name[/layer]` -> scalar; empty if switched off."""
        if self.points == "off":
            return {}
        _, activations, _ = setting.network.apply(variables, x)
        return diagnose(
            activations=activations,
            params=variables["params"],
            initial_params=initial,
            grads=grads,
            updates=updates,
            activation=setting.network.activation,
            learning_rate=setting.learning_rate,
            choose=dict.fromkeys((*CHEAP, *self.further())),
        )

    def ranks(
        self, setting: Setting, variables: dict[str, Any], x: jax.Array, task_index: jax.Array
    ) -> dict[str, jax.Array]:
        """The rank metrics at the end of task `task_index` (unbatched); NaN in the tasks that are skipped."""
        if self.points == "off" or self.ranks_every == 0:
            return {}

        def measure(variables):
            _, activations, _ = setting.network.apply(variables, x)
            return diagnose(activations=activations, activation=setting.network.activation, choose=RANKS)

        return _every(self.ranks_every, task_index, measure, variables)

    def probe(
        self,
        setting: Setting,
        optimizer: OptimizerConfig,
        key: jax.Array,
        variables: dict[str, Any],
        x: jax.Array,
        task_index: jax.Array,
    ) -> dict[str, jax.Array]:
        """The trainability probe at the end of task `task_index` (unbatched), on inputs x; NaN in tasks without."""
        period = self._period("trainability", self.probe_every)
        if self.points == "off" or period == 0:
            return {}

        def probe(variables):
            found = trainability(
                jax.random.fold_in(key, task_index),
                setting.network,
                variables,
                setting.initializer,
                x,
                optimizer.build(),
                self.probe_updates,
            )
            return {"probe_loss": found.loss, "probe_loss_fresh": found.fresh_loss}

        # Of the tasks counted from 1, so that the last of a round number of them is probed.
        return _every(period, task_index + 1, probe, variables)

    def curvature(
        self,
        setting: Setting,
        head: Head,
        key: jax.Array,
        variables: dict[str, Any],
        batch: Batch,
        task_index: jax.Array,
    ) -> dict[str, jax.Array]:
        """Curvature and kernels at the end of task `task_index` (unbatched), on the task's own loss of a batch."""
        period = self._period("curvature_readings", self.curvature_every)
        if self.points == "off" or period == 0:
            return {}

        def measure(variables):
            return curvature.readings(
                lambda outputs, y: objectives.loss(head, outputs, batch._replace(y=y)),
                lambda params, x: setting.network.apply({**variables, "params": params}, x)[0],
                variables["params"],
                batch.x,
                batch.y,
                jax.random.fold_in(key, task_index),
                inputs=self.curvature_inputs,
            )

        return _every(period, task_index + 1, measure, variables)


def _every(period: int, index: jax.Array, measure: Callable[[Any], dict[str, jax.Array]], variables: Any):
    """`measure(variables)` where the period divides index (unbatched: a branch also under vmap), else NaN."""
    if period == 1:
        return measure(variables)
    shapes = jax.eval_shape(measure, variables)
    nothing = jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), shapes)
    return jax.lax.cond(index % period == 0, measure, lambda _: nothing, variables)
