"""Evaluation of saved policies, with settings of its own: nothing of the training run changes.

Mean weights where the agent has noisy layers, a share of random actions, fresh episodes, unclipped rewards. The policy
is the last one, or that of the best iteration of each run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from plasticity import checkpoint
from plasticity.errors import UserError, unknown
from plasticity.method import padded
from plasticity.record import group_folders, read_runs
from rl import envs, learner
from rl.envs.base import Row
from rl.episodes import Episodes
from rl.learner import Plan
from rl.planning import policy_plan
from rl.program import programs, stacked
from rl.run import Run

POLICIES = ("best", "last")


@dataclass(frozen=True)
class Policies:
    """The saved networks of a group: `variables` have leaves `[lanes, ...]`."""

    runs: list[Run]
    plan: Plan
    variables: Any

    @classmethod
    def load(cls, group: Path, which: str = "best") -> Policies:
        """From a group folder. Raises `UserError` if there are none."""
        if which not in POLICIES:
            raise unknown("policy", which, POLICIES)
        newest = checkpoint.latest(group / "policies" / which)
        lines = read_runs(group)
        if newest is None or not lines:
            raise UserError(f"no saved policies in {group}: the first are written at the first checkpoint of training")
        runs = [Run.from_config(line.config) for line in lines]
        plan = policy_plan(runs[0])
        method = stacked(padded([run.method for run in runs]))
        seeds = jax.numpy.array([run.seed for run in runs])
        template = jax.jit(jax.vmap(lambda m, s: learner.parts(plan, m, s).initial))(method, seeds)
        return cls(runs, plan, checkpoint.load(newest, template)[0])

    def actor(self, lanes: list[int] | None = None) -> Callable[[np.ndarray, int, float], np.ndarray]:
        """A function of observations `[lanes, envs, ...]`, step and epsilon that gives actions `[lanes, envs]`."""
        chosen = list(range(len(self.runs))) if lanes is None else lanes
        program = programs(self.plan, self.runs[0].measure).greedy
        method = stacked(padded([self.runs[i].method for i in chosen]))
        seeds = jax.numpy.array([self.runs[i].seed for i in chosen])
        variables = jax.tree.map(lambda leaf: leaf[np.array(chosen)], self.variables)

        def act(obs: np.ndarray, step: int, epsilon: float) -> np.ndarray:
            key = jax.random.fold_in(jax.random.key(0), step)
            return np.asarray(program(method, seeds, variables, obs, key, np.float32(epsilon)))

        return act


class Stack:
    """Observations on the host: the newest frames side by side, zeros before the start of an episode."""

    def __init__(self, plan: Plan, envs: int) -> None:
        self.channels = plan.layout.frame_shape[-1]
        self.obs = np.zeros((envs, *plan.observation), plan.layout.dtype)

    def add(self, row: Row) -> np.ndarray:
        """The observations `[envs, ...]` after a row."""
        self.obs[row.first] = 0
        frame = row.frame
        wide = [(0, 0)] * (frame.ndim - 1) + [(0, self.channels - frame.shape[-1])]
        self.obs = np.concatenate([self.obs[..., self.channels :], np.pad(frame, wide)], axis=-1)
        return self.obs


def evaluate(
    policies: Policies,
    episodes: int,
    epsilon: float | None = None,
    game: str = "",
    envs_each: int = 8,
    seed: int = 10**6,
) -> np.ndarray:
    """Returns `[runs, episodes]` of whole episodes, the first to begin in each environment.

    epsilon: share of random actions, None for the agent's `eval_epsilon`. seed: of the environments.
    """
    first, plan = policies.runs[0], policies.plan
    lanes, each = len(policies.runs), min(envs_each, episodes)
    env = envs.make(game or first.games[0], lanes * each, first.protocol)
    # So many of every environment count, whatever their length: taking the first to end would favour short episodes.
    quota = -(-episodes // each)
    stack, act = Stack(plan, lanes * each), policies.actor()
    chosen = first.agent.eval_epsilon if epsilon is None else epsilon
    found: list[list[float]] = [[] for _ in range(lanes * each)]
    books = Episodes(lanes * each, 1)
    row, step = env.restart([seed + i for i in range(lanes * each)]), 0
    try:
        while any(len(returns) < quota for returns in found):
            books.add(row)
            for i, returns in enumerate(books.returns):
                found[i] += returns
            books.clear()
            obs = stack.add(row)
            env.send(act(obs.reshape(lanes, each, *obs.shape[1:]), step, chosen).reshape(-1))
            row, step = env.recv(), step + 1
    finally:
        env.close()
    return np.array([returns[:quota] for returns in found]).reshape(lanes, each * quota)[:, :episodes]


def groups_of(folder: Path) -> list[Path]:
    """The groups of a study folder, or the folder itself if it is a group. Raises `UserError` if there are none."""
    groups = [folder] if (folder / "runs.jsonl").is_file() else group_folders(folder)
    if not groups:
        raise UserError(f"no runs in {folder}: give a results folder, such as runs/rainbow-pong")
    return groups
