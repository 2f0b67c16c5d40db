"""A training step of each network at a small size: 8 runs in a group against 8 runs one after the other, and the forms
that the suite chooses on a CPU against the others, all in a scan.

python -m benchmarks.networks [pairs] [name ...]
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.common import machine, pairs, report, save
from plasticity.heads import Softmax
from plasticity.networks.base import Architecture, networks
from plasticity.spec import build_one, to_text

LANES = 8


class Case(NamedTuple):
    """A network with its inputs: images `[height, width, channels]`, or tokens `[positions]`. updates: a call."""

    spec: str
    inputs: tuple[int, ...]
    batch: int = 32
    updates: int = 20

    @property
    def name(self) -> str:
        return self.spec.partition("(")[0]

    @property
    def head(self) -> Softmax:
        return Softmax(10 if len(self.inputs) == 3 else 64)


CASES = (
    Case("mlp(100)", (14, 14, 1), updates=200),
    Case("cnn(64, channels=16)", (14, 14, 1)),
    Case("l2_init_cnn", (28, 28, 1)),
    Case("continual_imagenet_cnn(32, channels=8)", (28, 28, 1)),
    Case("resnet18(4)", (14, 14, 1), updates=10),
    Case("vit(32, heads=2)", (14, 14, 1)),
    Case("transformer(32)", (64,), batch=16, updates=10),
    Case("linear_recurrence(32)", (64,), batch=16, updates=10),
)
#: Fields that choose between forms of the same function: the suite's choice on a CPU, and the other.
FORMS = {"conv": ("matmul", "lax"), "form": ("scan", "associative")}


def training(case: Case, lanes: int = 1, **fields: str) -> Callable[[], Any]:
    """Some updates of Adam on one batch, in a scan; of a group, or with `lanes=1` of one run. Compiled and warm."""
    config = dataclasses.replace(build_one(case.spec, networks), **fields)  # pyrefly: ignore
    network, tx = config.build(Architecture(case.head)), optax.adam(1e-3)
    key, shape = jax.random.key(0), (case.batch, *case.inputs)
    if len(case.inputs) == 3:
        x, y = jax.random.normal(key, shape), jax.random.randint(key, shape[:1], 0, case.head.outputs)
    else:
        x = y = jax.random.randint(key, shape, 0, case.head.outputs)

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        params, state = carry
        grads = jax.grad(lambda p: jnp.mean(case.head.loss(network.apply({"params": p}, x)[0], y)))(params)
        updates, state = tx.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    def train(params: Any) -> Any:
        return jax.lax.scan(step, (params, tx.init(params)), length=case.updates)[0]

    init = jax.jit(lambda key: network.init(key, x)["params"])
    started = [init(jax.random.key(lane)) for lane in range(lanes)]
    if lanes == 1:
        (params,), program = started, jax.jit(train)
    else:
        params, program = jax.tree.map(lambda *leaves: jnp.stack(leaves), *started), jax.jit(jax.vmap(train))

    def run() -> None:
        jax.block_until_ready(program(params))

    run()
    return run


def measure(case: Case, count: int) -> dict[str, Any]:
    """A row of the table. Times are of an update of one run."""
    single, group = training(case), training(case, LANES)

    def one_by_one() -> None:
        for _ in range(LANES):
            single()

    together = pairs(one_by_one, group, count)
    each = 1e3 / (LANES * case.updates)
    row = {
        "network": to_text(build_one(case.spec, networks)),
        "inputs": f"{' x '.join(map(str, case.inputs))}, batch {case.batch}",
        "one by one, ms": together.a * each,
        f"{LANES} in a group, ms": together.b * each,
        "gain": together.ratio,
        "lowest": together.low,
        "highest": together.high,
    }
    for field, (chosen, other) in FORMS.items():
        if any(f.name == field for f in dataclasses.fields(networks.get(case.name))):  # pyrefly: ignore
            timed = pairs(training(case, **{field: other}), training(case, **{field: chosen}), count)
            row |= {"form": f"{chosen} against {other}", "form's gain": timed.ratio}
            row |= {"form's lowest": timed.low, "form's highest": timed.high}
    return row


def main(count: int = 5, *names: str) -> None:
    origin, rows = machine(), []
    for case in CASES:
        if not names or case.name in names:
            rows.append(measure(case, count))
            print(rows[-1], flush=True)
            save("networks", origin, rows)
    report("networks", origin, rows)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:])
