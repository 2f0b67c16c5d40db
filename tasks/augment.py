"""Random changes of images that leave their class as it is, drawn anew for each example and update.

    flip        left and right exchanged with probability 1/2
    crop        shifted by up to 4 pixels each way, the border mirrored
    rotate      turned by 0 to 15 degrees, bilinear, what comes from outside 0 (which is the mean of the data)

As in the code of Dohare et al. 2024 (doi:10.1038/s41586-024-07711-7) for class-incremental CIFAR-100, which does all
three; flip and crop are the usual pair on CIFAR since He et al. 2016 (arXiv:1512.03385). Mirrored border and angles of
one sign are recalled from that code, not read.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from plasticity.config import config, static
from plasticity.errors import UserError
from tasks.base import Batch, State
from tasks.data.sets import Images
from tasks.examples import ExampleTask

AUGMENTATIONS = ("none", "flip", "flip_crop", "flip_crop_rotate")
PAD = 4
DEGREES = 15.0


def flipped(key: jax.Array, x: jax.Array) -> jax.Array:
    """Each image `[height, width, channels]` of a batch mirrored, or not."""
    which = jax.random.bernoulli(key, 0.5, (x.shape[0], 1, 1, 1))
    return jnp.where(which, x[:, :, ::-1], x)


def cropped(key: jax.Array, x: jax.Array) -> jax.Array:
    """Each image of a batch shifted by up to PAD pixels down or up and right or left."""
    offsets = jax.random.randint(key, (x.shape[0], 2), 0, 2 * PAD + 1)
    padded = jnp.pad(x, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)), mode="reflect")

    def cut(image: jax.Array, offset: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (*offset, 0), x.shape[1:])

    return jax.vmap(cut)(padded, offsets)


def rotated(key: jax.Array, x: jax.Array) -> jax.Array:
    """Each image of a batch turned around its middle by up to DEGREES."""
    angles = jax.random.uniform(key, (x.shape[0],), maxval=jnp.deg2rad(DEGREES))
    middle = (jnp.array(x.shape[1:3]) - 1) / 2
    rows, columns = jnp.meshgrid(*map(jnp.arange, x.shape[1:3]), indexing="ij")

    def turned(image: jax.Array, angle: jax.Array) -> jax.Array:
        down, right = rows - middle[0], columns - middle[1]
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        places = [cos * down + sin * right + middle[0], cos * right - sin * down + middle[1]]
        one = lambda channel: map_coordinates(channel, places, order=1)  # noqa: E731
        return jax.vmap(one, in_axes=-1, out_axes=-1)(image)

    return jax.vmap(turned)(x, angles)


def augmented(name: str, key: jax.Array, x: jax.Array) -> jax.Array:
    """A batch of images `[batch, height, width, channels]` after the augmentation of this name."""
    keys = jax.random.split(key, 3)
    for part, change, own in zip(("flip", "crop", "rotate"), (flipped, cropped, rotated), keys, strict=True):
        if part in name:
            x = change(own, x)
    return x


@config
class PictureTask(ExampleTask):
    """Tasks on images as they are, with labels that hold for what they show: training batches may be augmented."""

    augment: str = static("none", choices=AUGMENTATIONS, help="what is done to images before each update")

    def check(self, data: Images) -> None:
        super().check(data)
        height, width = data.images.shape[1:3]
        if "crop" in self.augment and min(height, width) <= PAD:
            raise UserError(
                f"{self.name}: augment={self.augment} shifts images by up to {PAD} pixels, these have "
                f"{height} x {width}; a smaller pool leaves more"
            )

    def batch(
        self, state: State, key: jax.Array, step: jax.Array, index: jax.Array, data: Images
    ) -> tuple[State, Batch]:
        state, batch = super().batch(state, key, step, index, data)
        return state, batch._replace(x=augmented(self.augment, jax.random.fold_in(key, 3), batch.x))
