"""Agents on a small network whose replay is filled: what tests of updates and of acting begin with."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from rl import learner
from rl.learner import Plan
from rl.protocols import protocols
from rl.replay import ring as rings
from rl.replay.ring import Layout, Stored
from rl.run import Run

ENVS, ACTIONS, SLOTS, SEED, ROWS = 2, 3, 40, 5, 30
LR, BETA = 0.1, 0.5
SMALL = "replay_steps=80, min_replay_steps=20, batch_size=6, value_max=2, gamma=0.8"


def made_of(agent, mitigations="none", optimizer=f"sgd({LR})", stack=2):
    """Plan and method of an agent on frames of three numbers."""
    run = Run.of("probe_value", agent, mitigations, SEED, network="mlp(8, 2)", optimizer=optimizer)
    a = run.agent
    layout = Layout(SLOTS, ENVS, (3,), "float32", stack, a.n_step, a.gamma)
    return Plan(a, protocols.members()["plain"](stack=stack), layout, ACTIONS, reference=16), run.method


@functools.cache
def filled(agent, mitigations="none", optimizer=f"sgd({LR})"):
    """Plan, method and an agent's state after `ROWS` rows, its target and priorities moved away from the start."""
    plan, method = made_of(agent, mitigations, optimizer)
    state = jax.jit(functools.partial(learner.start, plan))(method, SEED)
    ring = state.ring
    draw = np.random.default_rng(1)
    append = _appending(plan.layout)
    for k in range(ROWS):
        first, over = (np.full(ENVS, k % 7 == at) for at in (0, 6))
        frame, reward = draw.normal(0, 1, (ENVS, 3)), np.where(first, 0, draw.normal(0, 1, ENVS))
        kept = Stored(*map(jnp.array, (frame.astype(np.float32), reward, over, over, first, first)))
        ring = append(ring, jnp.int32(k), kept, jnp.array(draw.integers(0, ACTIONS, ENVS)))
    moved = jax.tree.map(lambda p: p + 0.3 * draw.normal(0, 1, p.shape).astype(np.float32), state.target)
    away = jax.tree.map(lambda p: p + 0.2 * draw.normal(0, 1, p.shape).astype(np.float32), state.learner.variables)
    if ring.priorities is not None:
        leaf = np.where(ring.priorities.leaf > 0, draw.uniform(0.1, 3, ring.priorities.leaf.shape), 0).astype("float32")
        ring = ring._replace(priorities=ring.priorities._replace(leaf=jnp.array(leaf), sums=jnp.array(leaf.sum(1))))
    learned = state.learner._replace(variables=away)
    return plan, method, state._replace(target=moved, learner=learned, ring=ring)


@functools.cache
def _appending(layout):
    """Append a row and its actions."""

    def append(ring, count, kept, actions):
        return rings.set_action(layout, rings.append(layout, ring, count, kept), count + 1, actions)

    return jax.jit(append)


def updated(plan, method, state, number=0, updates=1, beta=BETA):
    """The state after updates `number ...` on the ring as it is."""
    light, frames = learner.detached(state), state.ring.frames
    numbers = jnp.int32(ROWS), jnp.int32(number), jnp.int32(updates), jnp.float32(beta)
    program = _program(plan)
    return learner.attached(program(method, SEED, frames, light, *numbers), frames)


def some_batch(plan, state, size=16):
    """Transitions drawn beside training, as for an event."""
    return learner.batch_of(plan, state.ring, state.ring.frames, jnp.int32(ROWS), jax.random.key(9), size, 0.0)


@functools.cache
def _program(plan):
    return jax.jit(functools.partial(learner.learn, plan))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def close(a, b, rtol=1e-4, atol=1e-5):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol), a, b)


AGENTS = {
    "dqn": f"dqn({SMALL})",
    "mse": f"dopamine_dqn({SMALL})",
    "double": f"double_dqn({SMALL})",
    "dueling": f"double_dqn({SMALL}, dueling=true, n_step=3)",
    "prioritized": f"prioritized({SMALL}, uniform_share=0.2)",
    "c51": f"c51({SMALL}, atoms=7, max_gradient_norm=0.05)",
    "rainbow": f"rainbow({SMALL}, atoms=7, noise=0)",
    "root": f"dopamine_rainbow({SMALL}, atoms=7)",
}
