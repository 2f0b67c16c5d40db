"""How mitigations are put together: one documented order, whatever the order in the spec.

Stages, first to last:

    block, activation, normalization, initialization, kernel, head, targets
                                                     hook `network`, one member a stage
    base                                             hook `base`, one member
    penalty                                          hook `penalty`, summed
    gradient                                         hook `gradient`; hook `optimizer`: what changes the gradient
    decay, step, projection, average, reset          hook `optimizer`, inner to outer
    event                                            hook `on_event`

Resets are outermost: they see the final parameters and may overwrite what decay and projections did. Within a stage
members are folded in alphabetical order of their names. A member stands at its `stage`; where its `optimizer` hook
belongs elsewhere (NaP is a normalisation and a projection), at its `optimizer_stage`. Two members of a stage that holds
one are an error, and so is the same member twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax

from plasticity.errors import UserError
from plasticity.mitigations.base import NEEDED, Context, Event, GradFn, Learner, Mitigation, Setting
from plasticity.network import Network, Params
from plasticity.networks.base import Architecture
from plasticity.optimizers.base import OptimizerConfig
from plasticity.rng import named

#: Stages that hold one member, with what it sets.
EXCLUSIVE = {
    "block": "the network's blocks",
    "activation": "the network's activation",
    "normalization": "the network's normalization",
    # Two draws of the same weights exclude each other, but a draw and what a kernel is made of do not.
    "initialization": "the network's initial weights",
    "kernel": "the network's kernels",
    "head": "the network's head",
    "targets": "the targets' code",
    "base": "the optimiser",
}
STAGES = (*EXCLUSIVE, "penalty", "gradient", "decay", "step", "projection", "average", "reset", "event")


def canonical(members: Sequence[Mitigation]) -> tuple[Mitigation, ...]:
    """The members in the order in which they are folded; a `UserError` if two of them cannot stand together."""
    for name, count in Counter(m.name for m in members).items():
        if count > 1:
            raise UserError(f"mitigation {name!r} is given {count} times; give it once")
    for stage, what in EXCLUSIVE.items():
        rivals = sorted(m.name for m in members if m.stage == stage)
        if len(rivals) > 1:
            raise UserError(f"{' and '.join(rivals)} cannot be combined: each sets {what}")
    for m in members:
        m.check([other for other in members if other is not m])
    return tuple(sorted(members, key=lambda m: (STAGES.index(m.stage), m.name)))


def architecture(members: Sequence[Mitigation], base: Architecture) -> Architecture:
    """Fold the `network` hooks."""
    for m in members:
        base = m.network(base)
    return base


def initial(members: Sequence[Mitigation], network: Network, key: jax.Array, example: jax.Array) -> dict[str, Any]:
    """Fresh variables of the network, with the members' memories if any has one."""
    variables = network.init(key, example)
    memories = {m.name: m.memory(variables, network) for m in members}
    memories = {name: memory for name, memory in memories.items() if memory is not None}
    return {**variables, "memory": memories} if memories else variables


def _seen_by(member: Mitigation, context: Context) -> Context:
    """The context with the member's own memory in it."""
    memories = context.variables.get("memory", {})
    return replace(context, memory=memories[member.name]) if member.name in memories else context


def penalty(members: Sequence[Mitigation], params: Params, context: Context) -> jax.Array | float:
    """The sum of the `penalty` hooks."""
    return sum((m.penalty(params, _seen_by(m, context)) for m in members), 0.0)


def gradient(members: Sequence[Mitigation], grad_fn: GradFn) -> GradFn:
    """Fold the `gradient` hooks."""
    for m in members:
        grad_fn = m.gradient(grad_fn)
    return grad_fn


def optimizer(members: Sequence[Mitigation], config: OptimizerConfig, setting: Setting) -> Setting:
    """The setting with `tx` composed: the optimiser, with the `optimizer` hooks folded around it."""
    for m in members:
        config = m.base(config)
    setting = replace(setting, learning_rate=config.lr)
    tx = config.build(per_entry=any(m.resets_units for m in members))
    for m in sorted(members, key=lambda m: (STAGES.index(m.optimizer_stage or m.stage), m.name)):
        # Each member has a key of its own name, so that adding one does not shift another's draws.
        tx = m.optimizer(tx, replace(setting, key=named(setting.key, m.name)))
    return replace(setting, tx=tx)


def after_update(members: Sequence[Mitigation], learner: Learner, context: Context) -> Learner:
    """Fold the `after_update` hooks of the members with a memory. context: of the update, at the old parameters."""
    for m in members:
        if m.name in (memories := learner.variables.get("memory", {})):
            seen = replace(context, variables={**context.variables, "memory": memories})
            learner = m.after_update(learner, _seen_by(m, seen))
    return learner


def check_needs(members: Sequence[Mitigation], loop: str, missing: Sequence[str]) -> None:
    """Raise `UserError` where a member needs a field of the context that this kind of loop never gives."""
    for m in members:
        for name in m.needs:
            if name in missing:
                raise UserError(f"{m.name} cannot be used in {loop}: it needs {NEEDED[name]}")


def remembering(learner: Learner, name: str, memory: Any) -> Learner:
    """The learner with another memory of the member called `name`."""
    memories = {**learner.variables["memory"], name: memory}
    return learner._replace(variables={**learner.variables, "memory": memories})


def on_switch(
    members: Sequence[Mitigation], key: jax.Array, learner: Learner, setting: Setting, event: Event
) -> Learner:
    """Fold the `on_event` hooks of a task switch."""
    for m in members:
        learner = m.on_event(named(key, m.name), learner, setting, event)
    return learner


def acts_at_events(member: Mitigation) -> bool:
    """Whether the member does anything at a task switch."""
    return type(member).on_event is not Mitigation.on_event
