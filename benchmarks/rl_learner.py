"""Updates a second of the DQN and Rainbow learners on a CPU, against one update a call in JAX and against PyTorch.

All with batches of 32 from a replay of 20,000 random steps; the suite makes many updates a call with the replay on the
device, the others put their batches together in numpy. And the convolutions inside and outside a scan.

python -m benchmarks.rl_learner [pairs]
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.common import machine, pairs, report, save, seconds
from benchmarks.rl_agent import Agents, run_of
from benchmarks.rl_plain import PlainJax, Torch
from plasticity.heads import Regression
from plasticity.networks.base import Architecture, networks
from plasticity.spec import build_one

#: Agent, game, the same network with XLA's convolution, updates a call.
CASES = (
    ("dqn", "pong", "nature(padding=VALID, init=uniform, conv=lax)", 20),
    ("rainbow", "pong", "nature(padding=VALID, init=uniform, conv=lax)", 20),
    ("small_dqn", "minatar_breakout", "minatar(conv=lax)", 500),
    ("small_rainbow", "minatar_breakout", "minatar(conv=lax)", 200),
)


def learners(count: int) -> list[dict[str, Any]]:
    origin, rows = machine(), []
    for agent, game, lax, updates in CASES:
        suite = Agents(run_of(agent, game), updates=updates).fill()
        plain = PlainJax(Agents(run_of(agent, game, network=lax)), updates)
        torches = [Torch(suite, updates, threads) for threads in (1, 2)]
        calls = [suite, plain, *torches]
        for call in calls:
            call()
        torch = min(torches, key=lambda loop: statistics.median(seconds(loop) for _ in range(3)))
        against = {"JAX, an update a call": pairs(plain, suite, count), "PyTorch": pairs(torch, suite, count)}
        for name, timed in against.items():
            rows.append(
                {
                    "agent": agent,
                    "against": name + (f", {torch.threads} threads" if name == "PyTorch" else ""),
                    "suite, updates/s": updates / timed.b,
                    "other, updates/s": updates / timed.a,
                    "times": timed.ratio,
                    "lowest": timed.low,
                    "highest": timed.high,
                }
            )
            print(rows[-1], flush=True)
        save("rl_learner", origin, rows)
    report("rl_learner", origin, rows)
    return rows


def torso(form: str, inside: bool, updates: int) -> Callable[[], Any]:
    """Forward and backward of the Nature network on 32 observations, one after the other, in a scan or not."""
    config = build_one(f"nature(padding=VALID, init=uniform, conv={form})", networks)
    network = config.build(Architecture(Regression(-10.0, 10.0), predictions=6))
    x = jax.random.bits(jax.random.key(0), (32, 84, 84, 4), jnp.uint8)
    params = network.init(jax.random.key(1), x)["params"]

    def step(params: Any, _: Any = None) -> tuple[Any, None]:
        grads = jax.grad(lambda p: jnp.square(network.apply({"params": p}, x)[0]).mean())(params)
        return jax.tree.map(lambda p, g: p - 1e-4 * g, params, grads), None

    one, scanned = jax.jit(step), jax.jit(lambda p: jax.lax.scan(step, p, length=updates)[0])

    def run() -> None:
        after = params
        if inside:
            after = scanned(after)
        else:
            for _ in range(updates):
                after, _ = one(after)
        jax.block_until_ready(after)

    run()
    return run


def convolutions(count: int, updates: int = 10) -> list[dict[str, Any]]:
    origin, rows = machine(), []
    base = torso("lax", False, updates)
    for form in ("lax", "matmul"):
        for inside in (False, True):
            if form == "lax" and not inside:
                continue
            timed = pairs(base, torso(form, inside, updates), count)
            rows.append(
                {
                    "form": form,
                    "where": "in a scan" if inside else "a call each",
                    "ms": timed.b / updates * 1e3,
                    "lax, a call each, ms": timed.a / updates * 1e3,
                    "speed against lax, a call each": timed.ratio,
                    "lowest": timed.low,
                    "highest": timed.high,
                }
            )
    report("rl_convolutions", origin, rows)
    return rows


def main(count: int = 7) -> None:
    convolutions(count)
    learners(count)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
