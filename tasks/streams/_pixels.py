"""Images whose pixels change places: the same pictures to a dense network, other ones to a convolutional network.

- full: all values of an image, whatever their channel, change places with each other,
- spatial: positions do, the same in all channels,
- rows: whole rows do.

An order says for each place which value of the image as it was comes there: x'[i] = x[order[i]].
"""

from __future__ import annotations

import jax

from tasks.data.sets import Images

WHAT = ("full", "spatial", "rows")


def places(what: str, data: Images) -> int:
    """How many things change places."""
    _, height, width, channels = data.images.shape
    return {"full": height * width * channels, "spatial": height * width, "rows": height}[what]


def arranged(what: str, x: jax.Array, order: jax.Array) -> jax.Array:
    """Images `[batch, height, width, channels]` in the order int32 `[places]`."""
    batch, height, width, channels = x.shape
    things = {"full": (height * width * channels,), "spatial": (height * width, channels), "rows": x.shape[1:]}[what]
    # Of the batch, after its images were picked: a picked image is a copy of neighbouring bytes.
    return x.reshape(batch, *things)[:, order].reshape(x.shape)
