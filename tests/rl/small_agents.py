"""Small groups of agents for the tests of training: probes, a tiny network, budgets of seconds."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from plasticity import checkpoint
from plasticity.folder import GroupFolder, Options
from plasticity.record import RunLine
from plasticity.rows import COMPACTED
from rl import learner
from rl.measure import Measure
from rl.planning import plan_of
from rl.run import Run
from rl.schedule import Schedule
from rl.train import train

#: A budget that fits any preset into seconds.
BUDGET = "replay_steps=2000, min_replay_steps=200, replay_ratio=1, target_updates=50, epsilon_decay_steps=500"
NO_MEASURE = Measure(every_updates=0, reference=4)


def runs_of(game, agent, mitigations="none", seeds=(0,), measure=NO_MEASURE, network="mlp(32, 2)", **rest):
    """One run for each seed; `rest`: fields of the schedule, `protocol` and `optimizer`."""
    own = {name: rest.pop(name) for name in ("protocol", "optimizer") if name in rest}
    schedule = Schedule(**rest)
    return [Run.of(game, agent, mitigations, seed, schedule, measure, network=network, **own) for seed in seeds]


def folder_of(path: Path, runs) -> GroupFolder:
    """The group folder of some runs, new or not."""
    return GroupFolder(path, [RunLine(r.id, r.label, r.seed, "planned", None, r.config) for r in runs])


def trained(path: Path, runs, options=None, **choices) -> pd.DataFrame:
    """Train a group to its end; its metric rows."""
    train(folder_of(path, runs), runs, [run.method for run in runs], options or Options(), **choices)
    return rows_of(path)


def rows_of(path: Path) -> pd.DataFrame:
    """The metric rows of a finished group, in an order that does not depend on how they were written."""
    import duckdb

    with duckdb.connect() as connection:
        frame = connection.sql(f"SELECT * FROM '{path / 'metrics' / COMPACTED}'").df()
    return frame.sort_values(["run_id", "task", "step", "name", "layer"], ignore_index=True)


def policies(path: Path, runs, which="last"):
    """The saved networks of a group, leaves `[lanes, ...]`."""
    plan, _ = plan_of(runs[0], len(runs))
    one = jax.eval_shape(lambda: learner.parts(plan, runs[0].method, 0).initial)
    template = jax.tree.map(lambda leaf: jnp.zeros((len(runs), *leaf.shape), leaf.dtype), one)
    newest = checkpoint.latest(path / "policies" / which)
    assert newest is not None
    return checkpoint.load(newest, template)[0]


def values(path: Path, runs, observations) -> np.ndarray:
    """Q-values of the last policies, mean weights: `[lanes, observations, actions]`."""
    plan, _ = plan_of(runs[0], len(runs))
    obs = jnp.asarray(observations, jnp.float32)

    def one(seed, variables):
        made = learner.parts(plan, runs[0].method, seed)
        return made.head.predict(learner.outputs(plan, made, variables, obs)[0])

    seeds = jnp.array([run.seed for run in runs])
    return np.asarray(jax.jit(jax.vmap(one))(seeds, policies(path, runs)))
