"""Frames of a ring in host memory, for when the device has no room for them.

Only the frames move: flags, returns and priorities stay on the device (`init(frames_on_device=False)`), `draw` and
`window` tell slots and masks as ever, and `gather` then gives bit for bit what `assemble` would. A batch of 32 with
stacks of 4 at both ends takes 1.8 MB over the bus an update.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Int, Shaped
from numpy.typing import ArrayLike

from rl.replay.ring import Layout


class HostFrames:
    """The frames of all lanes, `frames[lanes, slots, envs, pixels]`. The one part of the replay that has state."""

    def __init__(self, layout: Layout, lanes: int = 1) -> None:
        self.layout = layout
        pixels = math.prod(layout.frame_shape)
        # Zeros are committed page by page as rows arrive.
        self.frames = np.zeros((lanes, layout.slots, layout.envs, pixels), layout.dtype)

    def append(self, count: int, frames: Shaped[ArrayLike, "lanes envs *frame_shape"]) -> None:
        """Write row `count` of every lane."""
        here = self.frames[:, int(count) % self.layout.slots]
        here[...] = np.asarray(frames).reshape(here.shape)

    def gather(
        self,
        slots: Int[ArrayLike, "lanes batch stack"],
        envs: Int[ArrayLike, "lanes batch"],
        mask: Bool[ArrayLike, "lanes batch stack"],
    ) -> Shaped[np.ndarray, "lanes batch *image channels"]:
        """Observations `[lanes, batch, *frame_shape[:-1], stack * frame_shape[-1]]`, oldest frame first."""
        slots, envs, mask = np.asarray(slots), np.asarray(envs), np.asarray(mask)
        lanes, count, envs_each, pixels = self.frames.shape
        lane = np.arange(lanes)[:, None, None]
        flat = (lane * count + slots) * envs_each + envs[..., None]
        stacks = self.frames.reshape(-1, pixels)[flat]
        stacks[~mask] = 0
        stacks = np.moveaxis(stacks.reshape(*slots.shape, *self.layout.frame_shape), 2, -2)
        return stacks.reshape(*stacks.shape[:-2], -1)
