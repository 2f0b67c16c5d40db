"""The compiled programs of a group of agents: the functions of `rl.learner`, mapped over lanes.

A lane is one agent with environments, replay and strengths of its own. Counters and epsilon are not mapped. A single
agent is mapped, too: taking the lane's axis off and putting it back on would copy the replay in every step. The state
is donated, so the replay is written in place; `learn` reads its frames from a separate argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.method import Method
from rl import learner
from rl import measure as measuring
from rl.learner import Batch, Plan, parts, replay_key, update, weights
from rl.measure import Measure
from rl.replay import ring as ring_module
from rl.replay.sampling import draw


class Programs(NamedTuple):
    """Compiled on first use. All take and give leaves `[lanes, ...]`; `count`, `number` and the like are scalars."""

    start: Callable[..., Any]
    act: Callable[..., Any]
    learn: Callable[..., Any]
    event: Callable[..., Any]
    forget: Callable[..., Any]
    gather: Callable[..., Any]
    drawn_for: Mapping[str, Callable[..., Any]]
    measure: Callable[..., Any]
    probe: Callable[..., Any]
    greedy: Callable[..., Any]
    # With frames on the host, in steps between which they are fetched:
    take: Callable[..., Any]
    choose: Callable[..., Any]
    draw: Callable[..., Any]
    update: Callable[..., Any]


def stacked(methods: Sequence[Method]) -> Method:
    """Methods of one structure as one, leaves float32 `[lanes]`."""
    return jax.tree.map(lambda *leaves: jnp.array(leaves, jnp.float32), *methods)


@lru_cache
def programs(plan: Plan, schedule: Measure) -> Programs:
    """The programs of a group of agents; JAX compiles each for a number of lanes."""

    def compiled(function: Callable[..., Any], axes: str, donate: int | None = None) -> Callable[..., Any]:
        over = tuple(0 if a == "l" else None for a in axes)
        donated = () if donate is None else (donate,)
        return jax.jit(jax.vmap(function, in_axes=over), donate_argnums=donated)

    # One letter an argument: l by lane, - shared.
    return Programs(
        start=compiled(partial(learner.start, plan), "ll"),
        act=compiled(partial(learner.act, plan), "llll--", donate=2),
        learn=compiled(partial(learner.learn, plan), "llll-----", donate=3),
        event=compiled(partial(learner.event, plan), "llll-", donate=2),
        forget=compiled(partial(ring_module.emptied, plan.layout), "l"),
        gather=compiled(partial(learner.assemble, plan), "llll"),
        drawn_for={name: compiled(partial(measuring.drawn_for, plan, name), "ll--") for name in measuring.PURPOSES},
        measure=compiled(partial(measuring.measure, plan, schedule), "llll--"),
        probe=compiled(partial(measuring.probe, plan, schedule), "lll-"),
        greedy=compiled(partial(_greedy, plan), "llll--"),
        take=compiled(partial(_take, plan), "ll-", donate=0),
        choose=compiled(partial(learner.choose, plan), "llll--", donate=2),
        draw=compiled(partial(_draw, plan), "ll---"),
        update=compiled(partial(_update, plan), "llll--", donate=2),
    )


def _greedy(plan: Plan, method: Method, seed: Any, variables: Any, obs: Any, key: Any, epsilon: Any) -> Any:
    """Actions of a policy in evaluation: mean weights, a share epsilon at random. key: shared by the lanes."""
    made = parts(plan, method, seed)
    actions = learner.greedy(plan, made, variables, obs)
    explore, which = jax.random.split(jax.random.fold_in(key, seed))
    random = jax.random.randint(which, actions.shape, 0, plan.actions)
    return jnp.where(jax.random.uniform(explore, actions.shape) < epsilon, random, actions)


def _take(plan: Plan, state: learner.State, row: Any, count: Any) -> Any:
    """Append a row without its frames; where the frames of the newest observations are."""
    state = learner.take(plan, state, row, count)
    return state, ring_module.window(plan.layout, state.ring, count + 1)


def _draw(plan: Plan, seed: Any, state: learner.State, count: Any, number: Any, beta: Any) -> Any:
    """The draw of update `number`, and its importance weights."""
    drawn = draw(plan.layout, state.ring, count, replay_key(seed, number), plan.agent.batch_size, plan.drawing)
    return drawn, weights(plan, drawn, beta)


def _update(
    plan: Plan, method: Method, seed: Any, state: learner.State, batch: Batch, number: Any, elapsed: Any
) -> Any:
    """One update on a batch whose observations the host has gathered."""
    return update(plan, parts(plan, method, seed), seed, state, batch, number, elapsed)
