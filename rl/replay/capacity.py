"""How many transitions a replay may hold, decided before anything is allocated.

A million 84 × 84 frames take 7.06 GB, everything else of their rows 13 to 17 MB. The ring lies on the device if it fits
there beside the network, else its frames lie in host memory (`rl.replay.host`), else the user is told what fits.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from pathlib import Path
from typing import NamedTuple

import jax

from plasticity.errors import UserError
from rl.replay.ring import Layout, init

#: Transitions, where nothing else is asked for: as in Mnih et al. 2015.
DEFAULT = 1_000_000
#: Shares of free memory that a ring may take; the rest is for parameters, activations and compiled programs.
DEVICE_SHARE, HOST_SHARE = 0.8, 0.8


class Memory(NamedTuple):
    """Free bytes. device: of the accelerator, None where the device is the host (CPU)."""

    device: int | None
    host: int


class Capacity(NamedTuple):
    """slots: an environment. on_device: whether frames are there. bytes: of the whole ring, all lanes. words: why."""

    slots: int
    on_device: bool
    bytes: int
    words: str


def ring_bytes(layout: Layout, lanes: int = 1, prioritized: bool = False, frames_on_device: bool = True) -> int:
    """Bytes on the device. Nothing is allocated."""
    ring = jax.eval_shape(functools.partial(init, layout, frames_on_device, prioritized))
    return lanes * sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(ring))


def free_memory() -> Memory:
    """Of the first local device and of this machine, within the limit of the container if there is one."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    limit = stats.get("bytes_limit")
    host = _free_host()
    if device.platform == "cpu":
        return Memory(None, host)
    # A device that does not tell is given the benefit of the doubt as far as host memory goes.
    return Memory(host if limit is None else limit - stats.get("bytes_in_use", 0), host)


def choose(
    layout: Layout,
    asked: int | None = None,
    *,
    batch: int,
    lanes: int = 1,
    prioritized: bool = False,
    memory: Memory | None = None,
) -> Capacity:
    """Slots for a ring like `layout` (whose own `slots` do not count) of `asked` transitions, all environments
    together.

    None asks for a million, or as many as fit on the device. Raises `UserError` where what was asked fits nowhere, or
    is less than a batch and one row of transitions need.
    """
    memory = free_memory() if memory is None else memory
    need = max(layout.least_slots, layout.least_slots - 1 + -(-batch // layout.envs))
    slots = max(need, -(-(DEFAULT if asked is None else asked) // layout.envs))
    if asked is not None and asked < need * layout.envs:
        raise UserError(
            f"replay: a capacity of {asked:,} transitions is too small for batches of {batch:,} with {layout.envs} "
            f"environments, n_step {layout.n_step} and stack {layout.stack}; allowed: {need * layout.envs:,} or more"
        )

    size = functools.partial(_size, layout, lanes, prioritized)
    host_room = int(HOST_SHARE * memory.host)
    room = host_room if memory.device is None else int(DEVICE_SHARE * memory.device)
    place = "in memory" if memory.device is None else "on the device"
    fits = _most(lambda n: size(n) <= room, slots)
    if asked is None and need <= fits < slots:
        words = f"{fits * layout.envs:,} transitions {place}: {DEFAULT:,} would take {gigabytes(size(slots))}"
        return Capacity(fits, True, size(fits), f"{words}, and a replay may take {gigabytes(room)}")
    free = f"{gigabytes(size(slots))} of the {gigabytes(room)} that a replay may take"
    if fits == slots:
        return Capacity(slots, True, size(slots), f"{slots * layout.envs:,} transitions {place}: {free}")

    if memory.device is not None:

        def split(n: int) -> bool:
            rest = ring_bytes(_with(layout, n), lanes, prioritized, frames_on_device=False)
            return rest <= room and size(n) - rest <= host_room

        best = _most(split, slots)
        if best == slots:
            words = f"{slots * layout.envs:,} transitions, their frames in host memory: {gigabytes(size(slots))}, and "
            words += f"on the device a replay may take {gigabytes(room)}. Slower than on the device"
            return Capacity(slots, False, size(slots), words)
        fits = max(fits, best)
    raise UserError(
        f"replay: {slots * layout.envs:,} transitions take {gigabytes(size(slots))} in {lanes} agent(s); allowed here: "
        f"{fits * layout.envs:,} or fewer, at least {need * layout.envs:,}"
    )


def gigabytes(count: int) -> str:
    """Bytes in words."""
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.3f} MB"


def _with(layout: Layout, slots: int) -> Layout:
    return dataclasses.replace(layout, slots=slots)


def _size(layout: Layout, lanes: int, prioritized: bool, slots: int) -> int:
    return ring_bytes(_with(layout, slots), lanes, prioritized) if slots >= layout.least_slots else 0


def _most(fits, upper: int) -> int:
    """The largest n up to `upper` for which `fits(n)`, which must not become true again; 0 if none does."""
    low, high = 0, upper
    if fits(upper):
        return upper
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _free_host() -> int:
    """Bytes that can be taken without swapping, in the manner of this platform."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        # Outside Linux only the total is to be had without more packages.
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):  # No container, or one without a limit ("max").
        return free
    return min(free, max(limit, 0))
