"""Named key streams: one integer seed, one independent key for each purpose.

A stream's key depends on the seed and the stream's name only, so adding a component (a mitigation that
draws random numbers, a probe) never shifts the data, the initialisation or the tasks of a run. Every
mitigation is therefore compared on the same data.
"""

from __future__ import annotations

import zlib

import jax

STREAMS = ("init", "data", "task", "mitigation", "probe")


def named(key: jax.Array, name: str) -> jax.Array:
    """An independent key for `name` below `key`; it depends on the name only, not on what else is derived."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)


def stream(seed: int | jax.Array, name: str) -> jax.Array:
    """The typed PRNG key of stream `name` for integer `seed` (Python int or traced scalar).

    Raises `ValueError` for a name outside `STREAMS`.
    """
    if name not in STREAMS:
        raise ValueError(f"unknown key stream {name!r}; allowed: {', '.join(STREAMS)}")
    return named(jax.random.key(seed), name)
