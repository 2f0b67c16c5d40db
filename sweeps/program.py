"""The compiled programs of a sweep: `start` and `run_chunk`, mapped over a crossing of seeds and methods.

The maps are nested, seeds outside and methods inside, so that a batch is gathered once a seed and shared by all
methods. The task, its number and the step are not mapped. On several local accelerators the seeds (or, if they do not
divide, the methods) are sharded: each device runs its own lanes and nothing is communicated. On a CPU use one process a
core instead. `jax.jit` caches by tree structure, so groups of one structure and shape share one compilation; the state
is donated.

On a CPU, LLVM optimises at level 1 rather than XLA's 3: compilation is nearly all that a short group costs, and takes
two thirds of the time so, while the programs run as fast (benchmarks/README.md). Whoever sets the level in `XLA_FLAGS`
has it as it is set.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from plasticity.method import Method
from sweeps.grouping import Group
from tasks.measure import Measure
from tasks.train import Chunk, Record, RunState, Span, run_chunk, start

#: How a run's state is mapped over methods: the stream belongs to the seed, everything else to the run.
_BY_METHOD = RunState(None, 0, 0, 0, 0)  # pyrefly: ignore


def stacked(group: Group) -> tuple[Method, jax.Array]:
    """The group's methods as one config with leaves `[methods]`, and its seeds as int32 `[seeds]`."""
    method = jax.tree.map(lambda *leaves: jnp.array(leaves, jnp.float32), *group.padded)
    return method, jnp.array(group.seeds, jnp.int32)


def split_axis(shape: tuple[int, int], devices: int) -> str | None:
    """Which axis of a group is sharded over the local devices: `seeds`, `methods` or none."""
    if devices == 1:
        return None
    seeds, methods = shape
    return "seeds" if seeds % devices == 0 else "methods" if methods % devices == 0 else None


def begin(group: Group, data: Any) -> RunState:
    """The state of a group before its first task: leaves `[seeds, methods, ...]`, the stream's `[seeds, ...]`."""
    method, seeds = stacked(group)
    return _start(split_axis(group.shape, jax.local_device_count()))(group.first.task, method, seeds, data)


def advance(group: Group, span: Span, state: RunState, index: int, chunk: Chunk, data: Any) -> tuple[RunState, Record]:
    """Take a group through a chunk. The state is donated; records have leaves `[seeds, methods, (points)]`."""
    method, seeds = stacked(group)
    program = _advance(split_axis(group.shape, jax.local_device_count()), group.first.measure, span)
    return program(group.first.task, method, seeds, state, jnp.int32(index), chunk, data)


def _compiler_options() -> dict[str, Any]:
    name = "xla_backend_optimization_level"
    if jax.default_backend() != "cpu" or name in os.environ.get("XLA_FLAGS", ""):
        return {}
    return {name: 1}


@lru_cache
def _start(axis: str | None) -> Callable[..., RunState]:
    def batched(task, method, seeds, data):
        by_method = jax.vmap(partial(start, task, data=data), in_axes=(0, None), out_axes=_BY_METHOD)
        return jax.vmap(lambda m, s: by_method(m, s), in_axes=(None, 0))(method, seeds)

    return jax.jit(_sharded(batched, axis, "-ms-", "s"), compiler_options=_compiler_options())


@lru_cache
def _advance(axis: str | None, measure: Measure, span: Span) -> Callable[..., tuple[RunState, Record]]:
    def batched(task, method, seeds, state, index, chunk, data):
        def one(method, seed, state):
            return run_chunk(task, method, measure, span, seed, state, index, chunk, data)

        by_method = jax.vmap(one, in_axes=(0, None, _BY_METHOD), out_axes=(_BY_METHOD, 0))
        return jax.vmap(by_method, in_axes=(None, 0, 0))(method, seeds, state)

    sharded = _sharded(batched, axis, "-msS---", "SR")
    return jax.jit(sharded, donate_argnames="state", compiler_options=_compiler_options())


def _sharded(function: Callable[..., Any], axis: str | None, arguments: str, results: str) -> Callable[..., Any]:
    """Shard over local devices. One letter an argument: m methods, s seeds, S a state, R records, - replicated."""
    if axis is None:
        return function
    mesh = Mesh(np.array(jax.local_devices()), ("runs",))
    seeds, methods = ("runs", None) if axis == "seeds" else (None, "runs")
    lanes = PartitionSpec(seeds, methods)
    state = RunState(PartitionSpec(seeds), lanes, lanes, lanes, lanes)  # pyrefly: ignore
    specs = {"m": PartitionSpec(methods), "s": PartitionSpec(seeds), "S": state, "R": lanes, "-": PartitionSpec()}
    outs = [specs["S" if r == "s" else r] for r in results]
    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=tuple(specs[a] for a in arguments),
        out_specs=tuple(outs) if len(outs) > 1 else outs[0],
        check_vma=False,
    )
