"""What a sweep will cost, before it is run: programs, memory, and a rough time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from sweeps.grouping import Group, programs
from sweeps.program import stacked
from tasks.base import Data
from tasks.data import for_task
from tasks.train import start

#: Multiply-adds of a training step per parameter and example: forward, gradient of activations, gradient of weights.
FLOPS_PER_PARAMETER = 6
#: Rough seconds to compile a program, and arithmetic rate of one CPU core or a GPU in float32, by backend.
COMPILE_SECONDS = 5.0
RATE = {"cpu": 30e9, "gpu": 5e12, "tpu": 5e12}


class Estimate(NamedTuple):
    """programs: compiled; updates: over all runs; state_mib: largest group's; data_mib; seconds: order of magnitude."""

    programs: int
    updates: int
    state_mib: float
    data_mib: float
    seconds: float


def estimate(groups: Sequence[Group], workers: int = 1) -> Estimate:
    """Cost of the groups. Shapes are traced, nothing is computed. Loading the data checks them, too."""
    updates, flops, largest, data_bytes = 0, 0.0, 0, 0
    for group in groups:
        task = group.first.task
        data = for_task(task)
        lanes, steps = len(group.flat), task.steps * task.num_tasks
        state, parameters = run_shape(group, data)
        updates += lanes * steps
        flops += lanes * steps * FLOPS_PER_PARAMETER * parameters * task.batch_size
        largest = max(largest, state * lanes)
        data_bytes = max(data_bytes, _bytes(data))
    count = programs(groups)
    rate = RATE.get(jax.default_backend(), RATE["cpu"])
    return Estimate(
        count, updates, largest / 2**20, data_bytes / 2**20, (flops / rate + count * COMPILE_SECONDS) / workers
    )


def run_shape(group: Group, data: Data) -> tuple[int, int]:
    """Bytes of one run's state, and its number of parameters."""
    method, _ = stacked(group)
    one = jax.tree.map(lambda leaf: leaf[0], method)
    state = jax.eval_shape(lambda: start(group.first.task, one, jax.numpy.int32(0), data))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.learner.variables["params"]))
    return _bytes(state), parameters


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
