"""Agents on a machine with an accelerator: one command, ten minutes at most, a Markdown table and results/rl_gpu.json.

python -m benchmarks.rl_gpu [--minutes 9] [--quick] [--only replay,loop,lanes,learner,act]

Needs an accelerator's JAX (`pip install -e '.[cuda12,rl]'`). `--tiny` shows on any machine that the script works; its
numbers mean nothing and are not written to results/. Every section is a process of its own, so that memory peaks are
its own and a section that fails harms no other; what does not fit into the minutes is left out, and said so.

replay   a million transitions on the device: bytes at the peak after every stage (7.1 GB and a little where everything
         is written in place), rows past 2^31 elements, microseconds of an append, a draw, an update
loop     frames/s of training on Pong at 8, 16 and 32 environments, after compiling, next to the environments alone
lanes    8 agents at once, all frames together, against one
learner  updates/s: XLA's convolution or matrix products, float32 or bfloat16, one agent or 8
act      milliseconds from a row on the host to actions on the host
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import machine, save, seconds

ROOT = Path(__file__).resolve().parents[1]
Rows = Iterator[dict[str, Any]]


class Sizes(NamedTuple):
    """replay: agent steps of the large replay; short: of the others. first: steps before the first update."""

    replay: int = 1_000_000
    short: int = 100_000
    first: int = 2_000
    envs: tuple[int, ...] = (8, 16, 32)
    acting: tuple[int, ...] = (8, 16, 32, 64)
    lanes: int = 8
    seconds: float = 8.0
    updates: int = 200
    width: int = 512


SIZES = {
    "full": Sizes(),
    "quick": Sizes(envs=(8, 32), acting=(8, 64), seconds=5.0),
    "tiny": Sizes(800, 800, 200, (2,), (2,), 2, 0.5, 2, 16),
}


def network(sizes: Sizes, conv: str = "auto", dtype: str = "float32") -> str:
    return f"nature({sizes.width}, padding=VALID, init=uniform, conv={conv}, dtype={dtype})"


def row(what: str, value: Any, unit: str, note: str = "") -> dict[str, Any]:
    return {"what": what, "value": value, "unit": unit, "note": note}


def microseconds(call: Callable[[], Any], repeats: int) -> float:
    """Of one of `repeats` calls one after the other, the device waited for at the end; the best of three."""
    import jax

    def run() -> None:
        for _ in range(repeats):
            out = call()
        jax.block_until_ready(out)

    run()
    return min(seconds(run) for _ in range(3)) / repeats * 1e6


def device(sizes: Sizes) -> Rows:
    """What JAX runs on here."""
    import jax

    first = jax.local_devices()[0]
    yield row(first.device_kind, jax.local_device_count(), "devices", first.platform)


def replay(sizes: Sizes) -> Rows:
    """Memory and time of the replay of a Rainbow agent."""
    import jax

    from benchmarks.rl_agent import Agents, run_of

    def peak() -> Any:
        stats = jax.local_devices()[0].memory_stats() or {}
        return stats["peak_bytes_in_use"] / 1e9 if "peak_bytes_in_use" in stats else "not told"

    agents = Agents(run_of("rainbow", steps=sizes.replay, network=network(sizes)))
    lanes, layout = agents.lanes, agents.plan.layout
    jax.block_until_ready(lanes.state)
    ring = agents.held.bytes / 1e9
    place = "on the device" if agents.plan.frames_on_device else "in host memory"
    yield row("replay by its shapes", ring, "GB", place)
    yield row("peak after the start", peak(), "GB")
    start = time.perf_counter()
    agents.fill()
    jax.block_until_ready(lanes.state)
    took = time.perf_counter() - start
    yield row("filled with random rows", took, "s", f"{lanes.count:,} rows of {layout.envs}, compiling included")
    yield row("peak after appends in a loop", peak(), "GB")
    one = agents.row()
    np.asarray(lanes.act(one, 0.0))
    yield row("peak after an act", peak(), "GB")
    agents.learn(1)
    agents.learn(sizes.updates)
    yield row("peak after updates", peak(), "GB")
    if not isinstance(peak(), str):
        yield row("in place", bool(peak() < 1.5 * ring + 1), "", "no copy of the replay at the peak")

    # The last slot of all: its frames lie past 2^31 elements.
    shaped = type(one)(*(np.asarray(a).reshape(1, layout.envs, *np.shape(a)[1:]) for a in one))
    before = np.asarray(lanes.state.ring.frames[0, 0])
    lanes.state, _ = lanes.programs.take(lanes.state, shaped, np.int32(2 * layout.slots - 1))
    slots = np.full((1, layout.envs, layout.stack), layout.slots - 1, np.int32)
    envs = np.arange(layout.envs, dtype=np.int32)[None]
    read = np.asarray(lanes.programs.gather(lanes.state.ring.frames, slots, envs, np.ones(slots.shape, bool)))
    right = all((read[0, ..., i] == one.frame[..., 0]).all() for i in range(layout.stack))
    right = right and bool((np.asarray(lanes.state.ring.frames[0, 0]) == before).all())
    elements = layout.slots * layout.envs * int(np.prod(layout.frame_shape))
    yield row("last rows written and read", right, "", f"{elements:,} elements, {elements / 2**31:.2f} x 2^31")

    on_device = type(shaped)(*(jax.device_put(a) for a in shaped))
    counts = iter(range(3 * layout.slots, 10**9))

    def append(given: Any) -> Any:
        lanes.state, out = lanes.programs.take(lanes.state, given, np.int32(next(counts)))
        return out

    def draw() -> Any:
        return lanes.programs.draw(lanes.seeds, lanes._light, np.int32(lanes.count), np.int32(0), np.float32(0.5))

    repeats = sizes.updates
    note = "a call each"
    yield row("append a row of 8, from the host", microseconds(lambda: append(shaped), repeats), "us", note)
    yield row("append a row of 8, on the device", microseconds(lambda: append(on_device), repeats), "us", note)
    yield row("draw 32 by priority", microseconds(draw, repeats), "us", f"{note}; indices, returns, weights")
    many = min(seconds(lambda: agents.learn(repeats)) for _ in range(3)) / repeats * 1e6
    yield row("Rainbow update", many, "us", f"{repeats} in a call")
    single = min(seconds(lambda: agents.learn(1)) for _ in range(10)) * 1e6
    yield row("Rainbow update, waited for", single, "us", note)


def frames_per_second(sizes: Sizes, agent: str, envs: int, lanes: int, steps: int) -> float:
    """Emulator frames a second of `rl.train` on Pong, all agents together, once it learns."""
    from plasticity.folder import GroupFolder, Options, Stopped
    from plasticity.record import RunLine
    from rl.measure import Measure
    from rl.run import Run
    from rl.schedule import Schedule
    from rl.train import train

    iteration = 4 * envs * 100_000
    schedule = Schedule(frames=10 * iteration, iteration_frames=iteration, envs=envs)
    spec = f"{agent}(replay_steps={steps}, min_replay_steps={sizes.first})"
    quiet = Measure(every_updates=0, reference=32)
    runs = [Run.of("pong", spec, "none", i, schedule, quiet, network=network(sizes)) for i in range(lanes)]
    warm = 1.5 * 4 * sizes.first * lanes
    frames, begun, latest = 0, (0.0, 0), (0.0, 0)

    def progress(amount: int) -> None:
        nonlocal frames, begun, latest
        frames += amount
        latest = (time.perf_counter(), frames)
        if frames >= warm and not begun[1]:
            begun = latest

    def stop() -> bool:
        return bool(begun[1]) and time.perf_counter() - begun[0] >= sizes.seconds

    with tempfile.TemporaryDirectory() as path:
        lines = [RunLine(run.id, run.label, run.seed, "planned", None, run.config) for run in runs]
        try:
            train(
                GroupFolder(Path(path), lines),
                runs,
                [run.method for run in runs],
                Options(stop=stop, progress=progress),
                save_replay=False,
            )
        except Stopped:
            return (latest[1] - begun[1]) / (latest[0] - begun[0])
    raise RuntimeError("the training ended before it was stopped")


def loop(sizes: Sizes) -> Rows:
    """The whole loop of one agent."""
    from benchmarks.rl_envs import adapter

    for envs in sizes.envs:
        alone = adapter("pong", "nature", envs, max(1, 8_000 // envs) if sizes.replay > 10_000 else 20)
        alone()
        steps = max(1, 8_000 // envs) if sizes.replay > 10_000 else 20
        rate = 4 * envs * steps / seconds(alone)
        yield row(f"environments alone, {envs}", rate, "frames/s", f"{os.cpu_count()} CPU cores")
        for agent in ("dqn", "rainbow"):
            found = frames_per_second(sizes, agent, envs, 1, sizes.replay)
            updates = f"{found / 16:,.0f} updates/s"
            yield row(
                f"{agent}, {envs} environments", found, "frames/s", f"{updates}; {found / rate:.2f} of those alone"
            )


def lanes(sizes: Sizes) -> Rows:
    """Many agents in one program against one."""
    for agent in ("dqn", "rainbow"):
        one = frames_per_second(sizes, agent, sizes.envs[0], 1, sizes.short)
        yield row(f"{agent}, 1 agent of {sizes.envs[0]} environments", one, "frames/s")
        many = frames_per_second(sizes, agent, sizes.envs[0], sizes.lanes, sizes.short)
        yield row(f"{agent}, {sizes.lanes} agents of {sizes.envs[0]}", many, "frames/s", f"{many / one:.2f} times one")


def learner(sizes: Sizes) -> Rows:
    """Updates a second of all agents together, in calls of many."""
    from benchmarks.rl_agent import Agents, run_of

    kinds = [("lax", "float32"), ("lax", "bfloat16"), ("matmul", "float32"), ("matmul", "bfloat16")]
    for agent in ("dqn", "rainbow"):
        base: dict[int, float] = {}
        alone = 0.0
        for conv, dtype in kinds if agent == "dqn" else kinds[:2]:
            for count in (1, sizes.lanes):
                run = run_of(agent, steps=min(sizes.short, 20_000), network=network(sizes, conv, dtype))
                agents = Agents(run, count, sizes.updates).fill()
                agents()
                rate = count * sizes.updates / min(seconds(agents) for _ in range(3))
                base.setdefault(count, rate)
                note = f"{rate / base[count]:.2f} of lax float32"
                if count > 1:
                    note += f"; {rate / alone:.2f} times one agent"
                alone = rate
                yield row(f"{agent}, {conv}, {dtype}, agents: {count}", rate, "updates/s", note)


def act(sizes: Sizes) -> Rows:
    """Append, forward, fetch."""
    from benchmarks.rl_agent import Agents, run_of

    for agent in ("dqn", "rainbow"):
        for envs in sizes.acting:
            agents = Agents(run_of(agent, envs=envs, steps=max(sizes.short, 64 * envs), network=network(sizes)))
            one = agents.row()

            def call(agents: Agents = agents, one: Any = one) -> None:
                np.asarray(agents.lanes.act(one, 0.05))

            call()
            times = [seconds(call) * 1e3 for _ in range(max(5, sizes.updates // 2))]
            yield row(f"{agent}, {envs} environments", statistics.median(times), "ms", f"lowest {min(times):.3g}")


SECTIONS = {f.__name__: f for f in (device, replay, loop, lanes, learner, act)}


def in_process(section: str, size: str, limit: float) -> Rows:
    """Rows of a section in a fresh process; a last one that says so if it failed or was cut off after `limit` s."""
    command = [sys.executable, "-m", "benchmarks.rl_gpu", "--section", section, "--size", size]
    with tempfile.TemporaryFile("w+") as log:
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
        timer = threading.Timer(limit, worker.kill)
        timer.start()
        assert worker.stdout is not None
        try:
            for line in worker.stdout:
                if line.startswith("{"):
                    yield {"section": section, **json.loads(line)}
        finally:
            late = not timer.is_alive()
            timer.cancel()
            code = worker.wait()
        if code:
            log.seek(0)
            why = "out of time" if late else (log.read().strip().splitlines() or [f"exit {code}"])[-1][:300]
            yield {"section": section, **row("did not finish", "", "", why)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="budget; what does not fit is left out")
    parser.add_argument("--quick", action="store_true", help="fewer numbers of environments, shorter measurements")
    parser.add_argument("--tiny", action="store_true", help="a trial of the script on any machine")
    parser.add_argument("--only", default=",".join(list(SECTIONS)[1:]), help="sections, by commas")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--size", choices=SIZES, default="full", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.section:
        for found in SECTIONS[given.section](SIZES[given.size]):
            print(json.dumps(found), flush=True)
        return
    wanted = given.only.split(",")
    if unknown := set(wanted) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}; allowed: {', '.join(list(SECTIONS)[1:])}")

    end = time.monotonic() + 60 * given.minutes
    size = "tiny" if given.tiny else "quick" if given.quick else "full"
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        # Sections share programs; a cache that outlives the run would hide nothing but compile times.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / "plasticity-suite-benchmarks")
    origin = machine()
    (found,) = in_process("device", size, 120)
    origin |= {"device": found["what"], "devices": found["value"], "platform": found["note"]}
    if origin["platform"] == "cpu" and not given.tiny:
        sys.exit("no accelerator: JAX runs on the CPU here. Install jax[cuda12] on a machine with one, or try --tiny")
    print(f"{origin['devices']} x {origin['device']}, {origin['cores']} CPU cores, JAX {origin['versions']['jax']}")
    print("\n| section | what | value | unit | note |\n|---|---|---|---|---|", flush=True)
    rows: list[dict[str, Any]] = []
    for section in wanted:
        left = end - time.monotonic()
        out = in_process(section, size, left) if left > 5 else iter([{"section": section, **row("left out", "", "")}])
        for found in out:
            rows.append(found)
            value = f"{found['value']:,.4g}" if isinstance(found["value"], float) else found["value"]
            print(f"| {section} | {found['what']} | {value} | {found['unit']} | {found['note']} |", flush=True)
            if not given.tiny:
                save("rl_gpu", origin, rows)
    if any(found["what"] in ("did not finish", "left out") for found in rows):
        sys.exit("not everything was measured")


if __name__ == "__main__":
    main()
