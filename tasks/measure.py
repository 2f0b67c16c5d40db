"""When a run is measured, and what is measured then.

Measurements are dense just after a switch and sparse later: after updates 1, 2, 4, 8, ... of a task and at its end.
The cheap set (units, norms, gradients, updates) is taken at each of these points: unit metrics on a fixed reference
batch, gradient and update metrics on the training batch of that very update, which costs no extra pass. Rank metrics
need a decomposition a layer, so they are taken at the end of every `ranks_every`-th task, on `reference` examples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from plasticity.config import Config, config, static
from plasticity.diagnostics import diagnose
from plasticity.diagnostics.sets import CHEAP, RANKS, named
from plasticity.mitigations.base import Setting
from plasticity.network import Params
from plasticity.optimizers.base import OptimizerConfig
from plasticity.probes import trainability


@config
class Measure(Config):
    """The measuring schedule of a run; part of its config and so of its id."""

    name = "measure"

    points: str = static("dense", choices=("dense", "end", "off"), help="dense: after 1, 2, 4, ... updates; end; off")
    reference: int = static(256, ge=1, unit="examples", help="size of the reference batch")
    ranks_every: int = static(1, ge=0, unit="tasks", help="period of the rank metrics; 0 = never")
    also: str = static("", help="further diagnostics at every point: names with spaces between")

    probe_every: int = static(0, ge=0, unit="tasks", help="period of the trainability probe; 0 = never")
    probe_updates: int = static(200, ge=1, unit="updates", help="for which the probe trains a copy")

    def validate(self) -> None:
        named(self.also)

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
            choose=dict.fromkeys((*CHEAP, *named(self.also))),
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
        if self.points == "off" or self.probe_every == 0:
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
        return _every(self.probe_every, task_index + 1, probe, variables)


def _every(period: int, index: jax.Array, measure: Callable[[Any], dict[str, jax.Array]], variables: Any):
    """`measure(variables)` where the period divides index (unbatched: a branch also under vmap), else NaN."""
    if period == 1:
        return measure(variables)
    shapes = jax.eval_shape(measure, variables)
    nothing = jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), shapes)
    return jax.lax.cond(index % period == 0, measure, lambda _: nothing, variables)
