"""What the benchmarks of agents share: a group of agents with a full replay, ready to act and to learn."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rl import learner
from rl.envs.base import Row
from rl.lanes import Lanes
from rl.learner import Plan
from rl.measure import Measure
from rl.planning import plan_of
from rl.replay import ring as ring_module
from rl.run import Run
from rl.schedule import Schedule

QUIET = Measure(every_updates=0)
EPISODE = 200  # steps of an episode, on average


def run_of(agent: str, game: str = "pong", envs: int = 8, steps: int = 20_000, network: str = "", seed: int = 0) -> Run:
    """An agent's run with a replay of `steps` agent steps."""
    each = 1 if game.startswith("minatar") else 4
    schedule = Schedule(frames=envs * each, iteration_frames=envs * each, envs=envs)
    least = min(steps, 1_000)
    spec = f"{agent}(replay_steps={steps}, min_replay_steps={least})"
    return Run.of(game, spec, seed=seed, schedule=schedule, measure=QUIET, network=network)


class Agents:
    """`lanes` agents with replays full of random rows. Calling it makes `updates` updates in each of them."""

    def __init__(self, run: Run, lanes: int = 1, updates: int = 20) -> None:
        self.run, self.updates = run, updates
        self.plan, self.held = plan_of(run, lanes)
        self.lanes = Lanes(self.plan, QUIET, [run.method] * lanes, list(range(lanes)))
        self.done = 0

    def fill(self) -> Agents:
        """Append random rows, as many as the replay holds and a few more."""
        rows = self.plan.layout.slots + 8
        filled = jax.jit(jax.vmap(partial(_fill, self.plan), (0, 0, None)), donate_argnums=1)
        self.lanes.state = filled(self.lanes.seeds, self.lanes.state, np.int32(rows))
        self.lanes.count = rows
        return self

    def __call__(self) -> None:
        self.learn(self.updates)

    def learn(self, updates: int) -> None:
        """Make updates and wait for them."""
        self.lanes.learn(self.done, updates, 0.5)
        self.done += updates
        jax.block_until_ready(self.lanes.state.learner)

    def row(self) -> Row:
        """A random row of all environments of all lanes, on the host."""
        layout = self.plan.layout
        envs = self.lanes.size * layout.envs
        rng = np.random.default_rng(0)
        frame = rng.integers(0, 256, (envs, *layout.frame_shape)).astype(layout.dtype)
        no = np.zeros(envs, bool)
        return Row(frame, np.zeros(envs, np.float32), no, no, np.zeros(envs, np.int32), no)


def _fill(plan: Plan, seed: Any, state: learner.State, rows: Any) -> learner.State:
    layout = plan.layout

    def body(count: Any, carry: tuple[learner.State, Any]) -> tuple[learner.State, Any]:
        state, ended = carry
        frame_key, over_key, reward_key, action_key = jax.random.split(
            jax.random.fold_in(jax.random.key(seed), count), 4
        )
        frame = jax.random.bits(frame_key, (layout.envs, *layout.frame_shape), jnp.uint8).astype(layout.dtype)
        over = ~ended & (jax.random.uniform(over_key, (layout.envs,)) < 1 / EPISODE)
        reward = jax.random.normal(reward_key, (layout.envs,)) * ~ended
        row = Row(frame, reward, over, jnp.zeros_like(over), jnp.zeros(layout.envs, jnp.int32), ended)  # pyrefly: ignore
        state = learner.take(plan, state, row, count)
        action = jax.random.randint(action_key, (layout.envs,), 0, plan.actions)
        return state._replace(ring=ring_module.set_action(layout, state.ring, count + 1, action)), over

    return jax.lax.fori_loop(0, rows, body, (state, jnp.ones(layout.envs, bool)))[0]
