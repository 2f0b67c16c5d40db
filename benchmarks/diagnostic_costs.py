"""What each diagnostic costs, in training steps of the network that it measures; PyTorch and NumPy beside it.

python -m benchmarks.diagnostic_costs [seconds [widths ...]]

Three sizes, 784-128-128-10 at batch 512 to 784-2048-2048-10 at batch 4096: ReLU, Adam, measured on the training batch.
Times are CPU time of one core, to which the process is bound before any library counts the cores: what a busy machine
disturbs least. Each is the lowest of a few that alternate with training steps. Diagnostics that share a decomposition
are timed alone: a set of them costs less than their sum. `seconds` bounds each size's share for the diagnostics one by
one (default 30): first one for each way of computing, then the others; those that did not fit are named. `widths`: only
these sizes; rows of the others stay in the results. The largest size is timed once.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import plasticity
from benchmarks.common import RESULTS, Workload, machine, report, save
from plasticity import curvature
from plasticity.diagnostics import diagnose, diagnostics, get
from plasticity.diagnostics.rank import paths
from plasticity.diagnostics.sets import CHEAP, RANKS, named

SIZES = (Workload(128, 512), Workload(512, 1024), Workload(2048, 4096))
#: One diagnostic for each way of computing, the costly ones last.
FIRST = named(
    "dead_units linearized_units affine_fit_units sign_entropy dormant_units nearly_dead_units zero_activation_share "
    "preactivation_skewness preactivation_shift dormant_overlap cloned_units weight_norm distance_from_init "
    "gradient_norm update_ratio effective_lr_adam weight_skewness gradient_inactive_units gradient_snr "
    "moment_ratio_max sorted_distance_from_init isometry_deviation participation_ratio stable_rank "
    "top_singular_mean_alignment weight_srank srank"
)
#: For Hessian and kernel: one size, its batch, and the inputs of the kernel.
CURVED = Workload(512, 1024)
INPUTS = 64
#: Steps between measurements of a `Monitor` as it comes, and the dense ones after each change of task.
CADENCE, DENSE = 1000, 10


class Case:
    """A network in training: a compiled step, and everything that `diagnose` may ask for."""

    def __init__(self, work: Workload) -> None:
        rng = np.random.default_rng(0)
        shapes = list(zip(work.sizes[:-1], work.sizes[1:], strict=True))
        self.params = {
            f"layer_{i}": {
                "kernel": jnp.asarray(rng.normal(size=shape) * np.sqrt(2 / shape[0]), jnp.float32),
                "bias": jnp.zeros(shape[1]),
            }
            for i, shape in enumerate(shapes)
        }
        self.x = jnp.asarray(rng.normal(size=(work.batch, work.inputs)), jnp.float32)
        self.y = jnp.asarray(rng.integers(0, 10, work.batch))
        tx = optax.adam(1e-3)
        state = tx.init(self.params)
        loss = lambda params, x, y: cross_entropy(forward(params, x)[0], y)  # noqa: E731
        self.gradient = jax.jit(jax.grad(loss))

        @jax.jit
        def step(params: Any, state: Any) -> Any:
            updates, state = tx.update(jax.grad(loss)(params, self.x, self.y), state, params)
            return optax.apply_updates(params, updates), state, updates

        moved, state, updates = step(self.params, state)
        self.step = lambda: jax.block_until_ready(step(self.params, state))
        self.repeats = 1 if work.batch > 2048 else 3
        self.given: dict[str, Any] = {
            "activations": jax.jit(forward)(moved, self.x)[1],
            "reference_activations": jax.jit(forward)(self.params, self.x)[1],
            "params": moved,
            "initial_params": self.params,
            "grads": self.gradient(moved, self.x, self.y),
            "grads_2": self.gradient(moved, self.x[::-1] * 0.9, self.y),
            "updates": updates,
            "previous_updates": jax.tree.map(jnp.negative, updates),
            "opt_state": state,
            "learning_rate": jnp.asarray(1e-3),
        }

    def measuring(self, choose: tuple[str, ...], spectrum: str = "exact") -> Callable[[], Any]:
        # Only what is asked for is passed: arrays that nobody reads would still be handed over.
        needs = {need for name in choose for need in diagnostics()[name].needs}
        given = {name: value for name, value in self.given.items() if name in needs or name == "activations"}
        program = jax.jit(lambda given: diagnose(**given, choose=choose, spectrum=spectrum))
        compiled = program.lower(given).compile()
        return lambda: jax.block_until_ready(compiled(given))


def forward(params: Any, x: Any) -> Any:
    kept = {}
    for i in range(len(params)):
        layer = params[f"layer_{i}"]
        pre = x @ layer["kernel"] + layer["bias"]
        if i == len(params) - 1:
            return pre, kept
        x = jax.nn.relu(pre)
        kept[f"layer_{i}"] = (pre, x)
    raise AssertionError


def cross_entropy(outputs: Any, y: Any) -> Any:
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(outputs, y))


def seconds(call: Callable[[], Any]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def in_steps(case: Case, call: Callable[[], Any], repeats: int = 3) -> dict[str, float]:
    """The lowest time of a compiled call and of a step, measured in turns, and their ratio."""
    times = [(seconds(call), seconds(case.step)) for _ in range(min(repeats, case.repeats))]
    own, step = (min(column) for column in zip(*times, strict=True))
    return {"ms": 1e3 * own, "a step, ms": 1e3 * step, "steps": own / step}


def sets(work: Workload, case: Case) -> list[dict[str, Any]]:
    """What is measured together, and the share of training that the default set takes at its default cadence."""
    monitor = plasticity.Monitor(learning_rate=1e-3)
    given = {name: case.given[name] for name in ("activations", "params", "grads", "updates")}
    calls = {
        "Monitor.record, as it comes": lambda: monitor.record(0, **given),
        "cheap set": case.measuring(CHEAP),
        "four ranks, exact": case.measuring(RANKS),
        "three ranks, gram": case.measuring(("srank", "effective_rank", "stable_rank"), "gram"),
    }
    rows = []
    calls["Monitor.record, as it comes"]()  # compiles
    for name, call in calls.items():
        row = {"network": str(work), "what": name, **in_steps(case, call)}
        if name.startswith("Monitor"):
            row["share every 1,000 steps, %"] = 100 * row["steps"] / (row["steps"] + CADENCE)
            dense = row["steps"] * (1 + DENSE)
            row["share, task change every 1,000, %"] = 100 * dense / (dense + CADENCE)
        rows.append(row)
    return rows


def beside(work: Workload, case: Case) -> list[dict[str, Any]]:
    """The same metric as one would write it in PyTorch and in NumPy, on the same arrays."""
    import torch

    torch.set_num_threads(1)
    post = [np.asarray(pair[1]) for pair in case.given["activations"].values()]
    weights = [np.asarray(leaf) for leaf in jax.tree.leaves(case.given["params"])]
    torch_post, torch_weights = ([torch.from_numpy(a.copy()) for a in arrays] for arrays in (post, weights))

    def srank(s: Any) -> Any:
        return ((s.cumsum(0) / s.sum()) < 0.99).sum() + 1

    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "dead_units": (
            lambda: [float((h != 0).any(0).logical_not().float().mean()) for h in torch_post],
            lambda: [float(np.mean(~(h != 0).any(axis=0))) for h in post],
        ),
        "dormant_units": (
            lambda: [float((h.abs().mean(0) <= 0.025 * h.abs().mean()).float().mean()) for h in torch_post],
            lambda: [float(np.mean(np.abs(h).mean(axis=0) <= 0.025 * np.abs(h).mean())) for h in post],
        ),
        "weight_norm": (
            lambda: float(sum((w**2).sum() for w in torch_weights) ** 0.5),
            lambda: float(sum(np.vdot(w, w) for w in weights) ** 0.5),
        ),
        "srank": (
            lambda: [int(srank(torch.linalg.svdvals(h))) for h in torch_post],
            lambda: [int(srank(np.linalg.svd(h, compute_uv=False))) for h in post],
        ),
    }
    rows = []
    for name, (by_torch, by_numpy) in pairs.items():
        own, rows_of = case.measuring((name,)), {}
        for _ in range(case.repeats):
            for label, call in (("here", own), ("PyTorch", by_torch), ("NumPy", by_numpy)):
                rows_of[f"{label}, ms"] = min(rows_of.get(f"{label}, ms", np.inf), 1e3 * seconds(call))
        rows.append({"network": str(work), "what": f"{name} beside", **rows_of})
    return rows


def one_by_one(work: Workload, case: Case, budget: float) -> list[dict[str, Any]]:
    """Each diagnostic of `diagnose` alone."""
    rows, left, end = [], [], time.process_time() + budget
    decomposing = [name for name in diagnostics() if paths((name,)) or get(name).cost.startswith("one singular")]
    rest = [name for name in diagnostics() if name not in decomposing]
    for name in dict.fromkeys((*FIRST, *rest, *decomposing)):
        if name == "saturated_activation_share":
            continue  # not for ReLU
        if time.process_time() > end:
            left.append(name)
            continue
        rows.append({"network": str(work), "what": name, **in_steps(case, case.measuring((name,)), 2)})
    if left:
        print(f"no time for {len(left)} of {work}: {', '.join(left)}", flush=True)
    return rows


def curved(work: Workload, case: Case) -> list[dict[str, Any]]:
    """Compile time, run time and memory of Lanczos, trace and tangent kernel, whole and in chunks."""
    key, params, x, y = jax.random.key(0), case.params, case.x, case.y
    model = lambda params, x: forward(params, x)[0]  # noqa: E731
    loss = lambda params, x, y: cross_entropy(model(params, x), y)  # noqa: E731

    def hessian(params: Any, chunk: int | None) -> curvature.Operator:
        return curvature.hessian(loss, params, x, y, chunk=chunk)

    programs: dict[str, Callable[[Any], Any]] = {
        "3 eigenvalues, 36 steps": lambda p: curvature.largest_eigenvalues(hessian(p, None), key, 3),
        "3 eigenvalues, 36 steps, chunks of 128": lambda p: curvature.largest_eigenvalues(hessian(p, 128), key, 3),
        "spectrum, 90 steps": lambda p: curvature.spectral_density(curvature.spectrum(hessian(p, None), key)),
        "trace, 16 samples": lambda p: curvature.hutchinson_trace(hessian(p, None), key),
        f"tangent kernel, {INPUTS} inputs, one output": lambda p: curvature.tangent_kernel(
            model, p, x[:INPUTS], output=0
        ),
        f"tangent kernel, {INPUTS} inputs, one output, chunks of 16": lambda p: curvature.tangent_kernel(
            model, p, x[:INPUTS], output=0, chunk=16
        ),
    }
    rows = []
    for name, program in programs.items():
        start = time.process_time()
        compiled = jax.jit(program).lower(params).compile()
        compiling = time.process_time() - start
        row = {"network": str(work), "what": name, "compile, s": compiling}
        memory = compiled.memory_analysis()
        row |= in_steps(case, lambda compiled=compiled: jax.block_until_ready(compiled(params)), 2)
        rows.append(row | {"memory, MB": memory.temp_size_in_bytes / 1e6})
    return rows


def main(budget: float = 30, *widths: float) -> None:
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        os.execv(sys.executable, sys.orig_argv)  # libraries have counted the cores already
    origin, sizes = machine(), [work for work in SIZES if not widths or work.width in widths]
    measured, file = {str(work) for work in sizes}, RESULTS / "diagnostic_costs.json"
    kept = json.loads(file.read_text())["rows"] if widths and file.exists() else []
    rows = [row for row in kept if row["network"] not in measured]
    for work in sizes:
        case = Case(work)
        parts = [lambda: sets(work, case), lambda: beside(work, case), lambda: one_by_one(work, case, budget)]  # noqa: B023
        if work == CURVED:
            parts.append(lambda: curved(work, case))  # noqa: B023
        for part in parts:
            new = part()
            rows += new
            print(*new, sep="\n", flush=True)
            save("diagnostic_costs", origin, rows)
    report("diagnostic_costs", origin, rows)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
