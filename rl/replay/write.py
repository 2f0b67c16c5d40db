"""Writing a slice in place, for one lane or many.

The batching rule of `lax.dynamic_update_slice` turns it into a general scatter, also where all lanes write at the same
place. A ring of frames is written at `count % slots`, which lanes share, so `put` keeps it a `dynamic_update_slice`,
with the lanes as one more leading axis: a row is written and the rest of the ring, gigabytes of it, is not touched.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Int, Shaped


@custom_vmap
def put(
    array: Shaped[Array, ...], value: Shaped[Array, ...], start: tuple[int | Int[Array, ""], ...]
) -> Shaped[Array, ...]:
    """`array` with `value` (as many axes, none longer) at indices `start`, one for each axis."""
    return jax.lax.dynamic_update_slice(array, value, start)


@put.def_vmap
def _put_lanes(size: int, batched: Any, array: Array, value: Array, start: tuple[Array, ...]) -> tuple[Array, bool]:
    array_batched, value_batched, start_batched = batched
    if any(start_batched):  # Lanes that write at different places: no slice can say that.
        axes = (
            0 if array_batched else None,
            0 if value_batched else None,
            tuple(0 if b else None for b in start_batched),
        )
        return jax.vmap(jax.lax.dynamic_update_slice, axes, axis_size=size)(array, value, start), True
    if not array_batched:
        array = jnp.broadcast_to(array, (size, *array.shape))
    if not value_batched:
        value = jnp.broadcast_to(value, (size, *value.shape))
    return put(array, value, (jnp.int32(0), *start)), True


def once(known: Shaped[Array, ""], value: Shaped[Array, ...]) -> Shaped[Array, ...]:
    """`value`, but not before `known`, a number that is never negative, has been computed.

    XLA writes to an array in place only if it is sure that everybody else has read it. What orders a read and a write
    is a value that flows from one to the other (an `optimization_barrier` is gone before buffers are assigned), so what
    is written is made to depend, in form, on what was read.
    """
    return jnp.where(known >= 0, value, jnp.zeros((), value.dtype))
