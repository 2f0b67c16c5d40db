"""How mitigations are put together: one documented order, whatever the order in the spec.

Stages, first to last: activation, normalization, head (hook `network`); penalty (hook `penalty`, summed); decay, then
reset (hook `optimizer`, so that resets are outermost: they see the final parameters and may overwrite what decay did);
event (hook `on_event`). Within a stage members are folded in alphabetical order of their names. A network has one
activation, one normalisation and one head: two members of such a stage are an error, and so is the same member twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import jax

from plasticity.errors import UserError
from plasticity.mitigations.base import Context, Learner, Mitigation, Setting
from plasticity.network import Params
from plasticity.networks.base import Architecture
from plasticity.optimizers.base import OptimizerConfig
from plasticity.rng import named

STAGES = ("activation", "normalization", "head", "penalty", "decay", "reset", "event")
EXCLUSIVE = ("activation", "normalization", "head")


def canonical(members: Sequence[Mitigation]) -> tuple[Mitigation, ...]:
    """The members in the order in which they are folded; a `UserError` if two of them cannot stand together."""
    for name, count in Counter(m.name for m in members).items():
        if count > 1:
            raise UserError(f"mitigation {name!r} is given {count} times; give it once")
    for stage in EXCLUSIVE:
        rivals = sorted(m.name for m in members if m.stage == stage)
        if len(rivals) > 1:
            raise UserError(f"{' and '.join(rivals)} cannot be combined: each sets the network's {stage}")
    return tuple(sorted(members, key=lambda m: (STAGES.index(m.stage), m.name)))


def architecture(members: Sequence[Mitigation], base: Architecture) -> Architecture:
    """Fold the `network` hooks."""
    for m in members:
        base = m.network(base)
    return base


def penalty(members: Sequence[Mitigation], params: Params, context: Context) -> jax.Array | float:
    """The sum of the `penalty` hooks."""
    return sum((m.penalty(params, context) for m in members), 0.0)


def optimizer(members: Sequence[Mitigation], config: OptimizerConfig, setting: Setting) -> Setting:
    """The setting with `tx` composed: the optimiser, with the `optimizer` hooks folded around it."""
    tx = config.build(per_entry=any(m.resets_units for m in members))
    for m in members:
        # Each member has a key of its own name, so that adding one does not shift another's draws.
        tx = m.optimizer(tx, replace(setting, key=named(setting.key, m.name)))
    return replace(setting, tx=tx)


def on_switch(members: Sequence[Mitigation], key: jax.Array, learner: Learner, setting: Setting) -> Learner:
    """Fold the `on_event` hooks of a task switch."""
    for m in members:
        learner = m.on_event(named(key, m.name), learner, setting)
    return learner
