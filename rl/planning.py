"""From a run to what its programs are compiled for: sizes, actions, and where the replay has room."""

from __future__ import annotations

from dataclasses import replace

import jax

from plasticity.errors import UserError
from rl import envs, learner
from rl.learner import Plan
from rl.replay import capacity
from rl.replay.ring import Layout
from rl.run import Run


def plan_of(run: Run, lanes: int) -> tuple[Plan, capacity.Capacity]:
    """What a group of `lanes` such runs is compiled for. Raises `UserError` for what cannot be, before any compute."""
    agent = run.agent
    plan = policy_plan(run)
    run.schedule.cycles(envs.spec_of(run.games[0], run.protocol).frames_per_step)
    asked, prioritized = agent.replay_steps, agent.priority != "none"
    try:
        held = capacity.choose(plan.layout, asked, batch=agent.batch_size, lanes=lanes, prioritized=prioritized)
    except UserError as error:
        raise UserError(f"{error}. Set it by --agent '{agent.name}(replay_steps=...)'") from None
    least = plan.layout.least_slots * plan.layout.envs
    if agent.min_replay_steps < least:
        raise UserError(f"{agent.name}: min_replay_steps must be at least {least} here, got {agent.min_replay_steps}")
    plan = replace(plan, layout=replace(plan.layout, slots=held.slots), frames_on_device=held.on_device)
    jax.eval_shape(lambda: learner.parts(plan, run.method, run.seed).initial)  # heads and networks that do not fit
    return plan, held


def policy_plan(run: Run) -> Plan:
    """The plan of an agent that only acts: with a replay of the smallest size."""
    agent, protocol = run.agent, run.protocol
    specs = [envs.spec_of(game, protocol) for game in run.games]
    # Games of a sequence share one network: channels that a game lacks stay empty.
    *shape, _ = specs[0].shape
    frame_shape = (*shape, max(spec.shape[-1] for spec in specs))
    slots = protocol.stack + agent.n_step
    layout = Layout(slots, run.schedule.envs, frame_shape, specs[0].dtype, protocol.stack, agent.n_step, agent.gamma)
    return Plan(agent, protocol, layout, max(spec.actions for spec in specs), run.measure.reference)


def normalised(run: Run) -> bool:
    """Whether scores are human-normalised: where every game of the run has reference scores."""
    return all(envs.get(game).human is not None for game in run.games)
