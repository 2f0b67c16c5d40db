"""A policy to look at: an episode as a GIF, and a contact sheet of it as a PNG.

Atari games are drawn in colour by a second environment that is given the same seed and the same actions, and so is in
the same state as the one that the policy sees. Other games are drawn from their frames, a colour a channel.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from plasticity.errors import UserError
from plasticity.record import atomic
from rl import envs
from rl.envs.ale import AleEnv
from rl.evaluate import Policies, Stack

#: Colours of up to ten channels (Okabe & Ito 2008, and three greys), on black.
COLOURS = np.array(
    [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167]]
    + [[v] * 3 for v in (230, 170, 110)],
    np.uint8,
)


def play(policies: Policies, lane: int, epsilon: float, most_steps: int, game: str = "", seed: int = 10**6):
    """One episode of a run's policy: pictures `[steps, height, width, 3]` uint8, and its return."""
    run, plan = policies.runs[lane], policies.plan
    name = game or run.games[0]
    env = envs.make(name, 1, run.protocol)
    viewer = AleEnv(name, 1, run.protocol, screen=True) if envs.get(name).suite == "atari" else None
    act, stack = policies.actor([lane]), Stack(plan, 1)
    pictures: list[np.ndarray] = []
    score, step = 0.0, 0
    try:
        row = env.restart([seed])
        shown = viewer.restart([seed]).frame[0] if viewer else picture(row.frame[0])
        while True:
            pictures.append(shown)
            score += float(row.reward[0])
            if row.over[0] or row.truncated[0] or step >= most_steps:
                return np.stack(pictures), score
            actions = act(stack.add(row)[None], step, epsilon)[0]
            env.send(actions)
            if viewer:
                viewer.send(actions)
            row, step = env.recv(), step + 1
            shown = viewer.recv().frame[0] if viewer else picture(row.frame[0])
    finally:
        env.close()
        if viewer:
            viewer.close()


def picture(frame: np.ndarray, size: int = 200) -> np.ndarray:
    """A frame `[height, width, channels]` as a picture: grey if it has one channel, else the first that is on shows."""
    if frame.ndim != 3:
        raise UserError("only games with pictures can be drawn; this one shows numbers")
    if frame.shape[-1] == 1:
        drawn = np.repeat(frame, 3, axis=-1).astype(np.uint8)
    else:
        on = frame > 0
        drawn = np.where(on.any(-1, keepdims=True), COLOURS[np.argmax(on, axis=-1) % len(COLOURS)], 0).astype(np.uint8)
    scale = max(1, size // frame.shape[0])
    return drawn.repeat(scale, axis=0).repeat(scale, axis=1)


def gif(path: Path, pictures: np.ndarray, frames_a_second: float = 15.0) -> None:
    """Write pictures as an endless GIF, atomically."""
    images = [_image(p) for p in pictures]
    with atomic(path) as aside:
        images[0].save(
            aside, format="GIF", save_all=True, append_images=images[1:], duration=1000 / frames_a_second, loop=0
        )


def contact_sheet(path: Path, pictures: np.ndarray, columns: int = 6, rows: int = 4, gap: int = 4) -> None:
    """Write evenly spaced pictures as one PNG, in reading order, atomically."""
    wanted = min(len(pictures), columns * rows)
    chosen = pictures[np.linspace(0, len(pictures) - 1, wanted).round().astype(int)]
    height, width = pictures.shape[1:3]
    rows = math.ceil(wanted / columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for i, one in enumerate(chosen):
        top, left = (i // columns) * (height + gap) + gap, (i % columns) * (width + gap) + gap
        sheet[top : top + height, left : left + width] = one
    with atomic(path) as aside:
        _image(sheet).save(aside, format="PNG")


def _image(array: np.ndarray) -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise UserError("pictures need pillow: pip install 'plasticity-suite[rl]'") from None
    return Image.fromarray(array)
