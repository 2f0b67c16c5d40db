"""The replay ring of one agent: every frame once, and flags that say which rows make a transition.

Row k holds frame f_k, the reward r_k of action a_(k-1), flags, and the action a_k that was chosen on seeing it. It lies
in slot k mod T, for all E environments at once. Observations (stacks of frames) and n-step returns are put together
when they are drawn (`rl.replay.sampling`), so a ring of a million 84 × 84 frames takes 7 GB rather than 56.

- `term`: no bootstrap past f_k: the game is over, or a life is lost where the protocol counts that; then the game goes
  on.
- `stop`: a_k is ignored, for f_k is the last frame of its episode (over, truncated, or cut off by a restart).
- `fresh`: stacks begin anew at f_k; frames before it are zeros, as in Dopamine (Castro et al. 2018, arXiv:1812.06110).

A transition starts at every row without `stop`. It may be drawn once row t + n is written and until the slot of the
oldest frame of its stack is written again: rows max(0, count - T + stack - 1) to count - 1 - n. Truncation needs
nothing special: the last frame of an episode is a row of its own, from which the return bootstraps unless it has
`term`.

All functions are pure and for one lane; map them over lanes with `count`, `int32[]`, *not* mapped. `count` is always
the number of rows appended before the call: `append(..., count, ...)`, then `window(..., count + 1)` and
`set_action(..., count + 1, ...)`. Give the ring to a compiled program as a donated argument, or it is copied whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt8

from plasticity.errors import UserError
from rl.replay import blocks as block_sums
from rl.replay.blocks import Blocks
from rl.replay.write import once, put

TERM, STOP, FRESH = 1, 2, 4


@dataclass(frozen=True)
class Layout:
    """Sizes of a ring, all static. Raises `UserError` where they make no ring.

    slots: rows kept of each environment. frame_shape, dtype: of one frame, channels last. stack: frames in an
    observation. n_step, gamma: of the return. block: priorities summed together, 0 for what was fastest in
    measurements; rounded up to whole rows.
    """

    slots: int
    envs: int
    frame_shape: tuple[int, ...]
    dtype: str = "uint8"
    stack: int = 1
    n_step: int = 1
    gamma: float = 0.99
    block: int = 0

    def __post_init__(self) -> None:
        for name in ("envs", "stack", "n_step"):
            if getattr(self, name) < 1:
                raise UserError(f"replay: {name} must be at least 1, got {getattr(self, name)}")
        if not self.frame_shape or min(self.frame_shape) < 1:
            raise UserError(f"replay: frame_shape must have one axis or more, none empty, got {self.frame_shape}")
        if self.slots < self.least_slots:
            raise UserError(
                f"replay: {self.slots} slots an environment hold no transition of {self.n_step} steps and stacks of "
                f"{self.stack}; allowed: {self.least_slots} or more"
            )

    @property
    def least_slots(self) -> int:
        """Slots that hold one row of starts."""
        return self.stack + self.n_step

    @property
    def capacity(self) -> int:
        """Rows of all environments together."""
        return self.slots * self.envs

    @property
    def block_slots(self) -> int:
        """Slots in a block of priorities."""
        return -(-(self.block or 256) // self.envs)


class Stored(NamedTuple):
    """What is known of a row when it arrives, `[envs, ...]`. `first`: the frame begins an episode (so it is fresh)."""

    frame: Shaped[Array, "envs ..."]
    reward: Float[Array, " envs"]
    term: Bool[Array, " envs"]
    stop: Bool[Array, " envs"]
    first: Bool[Array, " envs"]
    fresh: Bool[Array, " envs"]


class Ring(NamedTuple):
    """frames: None where the host keeps them. flags: bits `TERM`, `STOP`, `FRESH`. starts: how many may be drawn.

    priorities: leaf `slot * envs + env`, positive where a transition may be drawn; None when drawing is uniform.
    """

    frames: Shaped[Array, "slots envs pixels"] | None
    action: Int[Array, "slots envs"]
    reward: Float[Array, "slots envs"]
    flags: UInt8[Array, "slots envs"]
    starts: Int[Array, ""]
    priorities: Blocks | None


def init(layout: Layout, frames_on_device: bool = True, prioritized: bool = False) -> Ring:
    """An empty ring."""
    rows = (layout.slots, layout.envs)
    blocks = -(-layout.slots // layout.block_slots)
    return Ring(
        jnp.zeros((*rows, math.prod(layout.frame_shape)), layout.dtype) if frames_on_device else None,
        jnp.zeros(rows, jnp.int32),
        jnp.zeros(rows),
        jnp.zeros(rows, jnp.uint8),
        jnp.zeros((), jnp.int32),
        block_sums.zeros(blocks, layout.block_slots * layout.envs) if prioritized else None,
    )


def emptied(layout: Layout, ring: Ring) -> Ring:
    """A ring without its frames as it is at the start. Old frames may be put back: no row before the next is read."""
    return init(layout, frames_on_device=False, prioritized=ring.priorities is not None)


def append(layout: Layout, ring: Ring, count: Int[Array, ""], stored: Stored) -> Ring:
    """Write row `count` over row `count - slots`. Its action is unknown until `set_action`."""
    slots, stack, n_step = layout.slots, layout.stack, layout.n_step
    # Slots of the rows before, of the one that may be drawn from now on, and of the one that no longer may.
    here, before, entering = count % slots, (count + slots - 1) % slots, (count + slots - n_step) % slots
    leaving = (count + stack - 1) % slots

    gone = ((count > slots - stack) & (ring.flags[leaving] & STOP == 0)).sum(dtype=jnp.int32)
    # A restart in the middle of an episode is known only now: the action before it led nowhere.
    last = ring.flags[before] | (stored.first * STOP).astype(jnp.uint8)
    # The very first row is fresh whatever it says: there is nothing before it.
    fresh = stored.fresh | stored.first | (count == 0)
    row = (stored.term * TERM + stored.stop * STOP + fresh * FRESH).astype(jnp.uint8)
    flags = put(put(ring.flags, once(gone, last)[None], (before, 0)), row[None], (here, 0))
    come = (count >= n_step) & (flags[entering] & STOP == 0)

    priorities = ring.priorities
    if priorities is not None:
        envs = layout.envs
        values = jnp.zeros(envs), jnp.where(come, priorities.peak, 0.0)
        priorities = block_sums.put_runs(priorities, leaving * envs, entering * envs, values)
    frames = ring.frames
    if frames is not None:
        frames = put(frames, stored.frame.astype(frames.dtype).reshape(1, layout.envs, -1), (here, 0, 0))
    return Ring(
        frames,
        ring.action,
        put(ring.reward, stored.reward.astype(jnp.float32)[None], (here, 0)),
        flags,
        ring.starts + come.sum(dtype=jnp.int32) - gone,
        priorities,
    )


def set_action(layout: Layout, ring: Ring, count: Int[Array, ""], actions: Int[Array, " envs"]) -> Ring:
    """Write the actions chosen on seeing the newest row, `count - 1`."""
    newest = (count + layout.slots - 1) % layout.slots
    return ring._replace(action=put(ring.action, actions.astype(jnp.int32)[None], (newest, 0)))


def window(
    layout: Layout, ring: Ring, count: Int[Array, ""]
) -> tuple[Int[Array, "envs stack"], Bool[Array, "envs stack"]]:
    """Slots and mask of each environment's newest observation, for `assemble`."""
    slots = (count + layout.slots - layout.stack + jnp.arange(layout.stack)) % layout.slots
    mask = stack_mask((ring.flags[slots] & FRESH > 0).T)
    return jnp.broadcast_to(slots, mask.shape), mask


def stack_mask(fresh: Bool[Array, "*batch stack"]) -> Bool[Array, "*batch stack"]:
    """Which frames of a stack, oldest first, belong to it: none before the newest fresh one."""
    after = jnp.cumsum(fresh[..., ::-1], axis=-1)[..., ::-1] - fresh
    return after == 0


def assemble(
    frames: Shaped[Array, "slots envs pixels"],
    slots: Int[Array, "batch stack"],
    envs: Int[Array, " batch"],
    mask: Bool[Array, "batch stack"],
    frame_shape: tuple[int, ...],
) -> Shaped[Array, "batch *image channels"]:
    """Observations `[batch, *frame_shape[:-1], stack * frame_shape[-1]]`, oldest frame first, dtype of frames."""
    stacks = jnp.where(mask[..., None], frames[slots, envs[:, None]], 0)
    stacks = jnp.moveaxis(stacks.reshape(*slots.shape, *frame_shape), 1, -2)
    return stacks.reshape(*stacks.shape[:-2], -1)
