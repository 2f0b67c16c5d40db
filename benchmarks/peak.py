"""Which share of the machine's matrix-product peak training 784-512-512-10 reaches, in JAX and in PyTorch.

The peak is the best of square float32 products of 1024 and 2048, by JAX and by PyTorch, in this process, each timed
next to the training it is compared with.   python -m benchmarks.peak [pairs]
"""

from __future__ import annotations

import sys

from benchmarks.common import LARGE, Training, best_torch, machine, pairs, report


def main(count: int = 5) -> None:
    import jax
    import jax.numpy as jnp
    import torch

    origin, rows = machine(), []
    product = jax.jit(lambda a: a @ a)
    loops = {False: best_torch(LARGE, 100), True: best_torch(LARGE, 100, fused=True)}
    trainings = {
        **{f"JAX, {lanes} runs a group": Training(LARGE, lanes, steps=100) for lanes in (1, 4)},
        "PyTorch": loops[False],
        "PyTorch, fused Adam": loops[True],
    }
    threads = torch.get_num_threads()
    for name, train in trainings.items():
        best = {}
        for size in (1024, 2048):
            times = 4 if size == 2048 else 32
            a, b = jnp.ones((size, size)), torch.ones(size, size)
            calls = {
                "JAX": lambda a=a, n=times: jax.block_until_ready([product(a) for _ in range(n)]),
                "PyTorch": lambda b=b, n=times: [b @ b for _ in range(n)],
            }
            for engine, call in calls.items():
                torch.set_num_threads(2 if engine == "PyTorch" else threads)
                call()
                timed = pairs(call, train, count)
                flops = 2 * size**3 * times
                best[engine, size] = flops / timed.a / 1e9, train.updates / timed.b
        reached = max(updates for _, updates in best.values()) * LARGE.flops / 1e9
        peaks = {e: max(v[0] for k, v in best.items() if k[0] == e) for e in ("JAX", "PyTorch")}
        rows.append(
            {
                "training": name,
                "updates/s": reached * 1e9 / LARGE.flops,
                "GFLOP/s": reached,
                "peak by JAX": peaks["JAX"],
                "peak by PyTorch": peaks["PyTorch"],
                "share of JAX's peak, %": 100 * reached / peaks["JAX"],
                "share of the higher peak, %": 100 * reached / max(peaks.values()),
            }
        )
    report("peak", origin, rows)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
