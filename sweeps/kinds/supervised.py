"""Supervised streams: a run learns a sequence of tasks. Work is counted in updates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from plasticity import spec
from plasticity.folder import Options
from plasticity.identity import digest, resolved
from sweeps.compute import compute
from sweeps.grouping import Group
from sweeps.kinds import Cost
from sweeps.program import stacked
from sweeps.run import Run
from tasks.train import start

#: Multiply-adds of a training step per parameter and example: forward, gradient of activations, gradient of weights.
FLOPS_PER_PARAMETER = 6
#: Arithmetic rate of one CPU core or a GPU in float32, by backend.
RATE = {"cpu": 30e9, "gpu": 5e12, "tpu": 5e12}


class Supervised:
    name = ""
    unit = "updates"
    #: See benchmarks/README.md for the curves behind these.
    lanes = {"cpu": 16, "gpu": 256, "tpu": 256}  # noqa: RUF012 - constant

    from_config = staticmethod(Run.from_config)

    def common(self, run: Run) -> Any:
        return digest(resolved(run.task)), digest(resolved(run.measure))

    def structure(self, run: Run) -> Any:
        return jax.tree.structure(run.task), run.measure

    def task_json(self, run: Run) -> dict[str, Any]:
        task = run.task
        data = task.load()
        lengths = [task.length(index, data) for index in range(task.num_tasks)]
        return {
            "key": run.key,
            "label": run.key,
            "spec": spec.to_text(task),
            "steps": lengths[0] if len(set(lengths)) == 1 else lengths,
            "num_tasks": task.num_tasks,
            "score_label": task.score_label,
            "chance": float(task.problem(data).chance),
        }

    def cost(self, group: Group) -> Cost:
        task = group.first.task
        data = task.load()  # loading the data checks them, too
        lanes = len(group.flat)
        work = lanes * task.before(task.num_tasks, data)
        state, parameters = run_shape(group, data)
        flops = work * FLOPS_PER_PARAMETER * parameters * task.batch_size
        rate = RATE.get(jax.default_backend(), RATE["cpu"])
        return Cost(work, flops / rate, state * lanes / 2**20, _bytes(data) / 2**20)

    def compute(self, path: Path, group: Group, options: Options) -> bool:
        return compute(path, group, options)


def run_shape(group: Group, data: Any) -> tuple[int, int]:
    """Bytes of one run's state, and its number of parameters."""
    method, _ = stacked(group)
    one = jax.tree.map(lambda leaf: leaf[0], method)
    state = jax.eval_shape(lambda: start(group.first.task, one, jax.numpy.int32(0), data))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.learner.variables["params"]))
    return _bytes(state), parameters


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


KIND = Supervised()
