"""Pictures of a task: a few examples before and after a switch, as a network sees them; and a gallery of all tasks.

Images are drawn from the normalised inputs, so that a changed input is seen, with label or target above. Rows of
numbers and tokens are drawn as a map, a row an example, with the targets at the side. What changed in the target is
bold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from plasticity.errors import UserError
from plasticity.rng import named, stream
from plasticity.spec import to_text
from tasks.base import Batch, Task, Transition
from tasks.data.sets import Images, Text

WIDE = 16


class Switch(NamedTuple):
    """Examples of task `index - 1` and of task `index`."""

    config: Task
    data: Any
    index: int
    before: Batch
    after: Batch


def switch(config: Task, data: Any, index: int, samples: int, seed: int) -> Switch:
    """At most `samples` examples on each side of the switch to task `index`, of the stream that a run sees."""
    if not 1 <= index < config.num_tasks:
        raise UserError(f"--task must be at least 1 and below num_tasks ({config.num_tasks}), got {index}")
    if samples < 1:
        raise UserError(f"--samples must be at least 1, got {samples}")
    key = stream(seed, "task")
    advance = jax.jit(config.advance)
    before = state = jax.jit(config.init)(named(key, "first"), data)
    for number in range(1, index + 1):
        before, state = state, advance(state, jax.random.fold_in(key, number), jnp.int32(number), data)
    shown = (config.fixed(s, jnp.int32(i), samples, data) for s, i in ((before, index - 1), (state, index)))
    return Switch(config, data, index, *shown)


def single(shown: Switch) -> Figure:
    """One task."""
    figure = Figure(figsize=(_width(shown), 3.8), layout="constrained")
    _draw(figure, shown)
    return figure


def gallery(shown: Sequence[Switch], columns: int = 2) -> Figure:
    """All of them, one panel each."""
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(6.6 * columns, 3.1 * rows), layout="constrained")
    panels = figure.subfigures(rows, columns, squeeze=False, wspace=0.03, hspace=0.03)
    for panel, one in zip(panels.flat, shown, strict=False):
        _draw(panel, one)
    return figure


def _width(shown: Switch) -> float:
    return 1.2 * len(shown.before.x) + 0.8 if isinstance(shown.data, Images) else 7.0


def _draw(figure: Any, shown: Switch) -> None:
    figure.suptitle(to_text(shown.config), fontsize=8)
    (_images if isinstance(shown.data, Images) else _maps)(figure, shown)


def _images(figure: Any, shown: Switch) -> None:
    axes = figure.subplots(2, len(shown.before.x), squeeze=False)
    values = isinstance(shown.before.y, Transition)
    same = _targets(shown.before) == _targets(shown.after)
    seconds = shown.before.y.next_x if values else shown.after.x
    names = ("observed", "next") if values else (f"task {shown.index - 1}", f"task {shown.index}")
    for row, (x, batch) in enumerate(((shown.before.x, shown.before), (seconds, shown.after))):
        images = np.clip(np.asarray(x * shown.data.std + shown.data.mean), 0, 1)
        words = [""] * len(x) if values and row else _words(shown, batch)
        for i, axis in enumerate(axes[row]):
            axis.imshow(images[i].squeeze(), cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            # Bold, not only coloured: it must be seen in print and by everyone.
            axis.set_title(words[i], fontsize=8, fontweight="bold" if row and not same[i] else "normal")
        axes[row][0].set_ylabel(names[row], fontsize=8)
    kind = "label" if shown.config.kind == "classification" else "target"
    words = f"above each example its {kind}; bold: changed at the switch"
    if values:
        words = "state, action, reward, and what is seen next; what changes at a switch is the target network"
    figure.supxlabel(words, fontsize=7)


def _maps(figure: Any, shown: Switch) -> None:
    text = isinstance(shown.data, Text)
    for row, (axis, batch) in enumerate(zip(figure.subplots(1, 2), (shown.before, shown.after), strict=True)):
        x = np.asarray(batch.x)[:, :WIDE] if text else np.asarray(batch.x)
        axis.imshow(x, aspect="auto", cmap="viridis", interpolation="nearest")
        axis.set_title(f"task {shown.index - 1 + row}", fontsize=8)
        if text:
            for (i, j), token in np.ndenumerate(x):
                # Bright fields are those of high numbers.
                color = "black" if token > 0.6 * shown.data.vocabulary else "white"
                axis.text(j, i, shown.data.alphabet[token], ha="center", va="center", fontsize=5, color=color)
            axis.set(yticks=[])
        else:
            axis.yaxis.tick_right()
            axis.set_yticks(range(len(x)), _words(shown, batch))
        axis.set_xticks([])
        axis.tick_params(labelsize=7)
        axis.set_xlabel("position in the window" if text else "input", fontsize=7)
    names = (
        "a row is a window, the target is the next token" if text else "a row is an example, at its right the target"
    )
    figure.supxlabel(names, fontsize=7)


def _targets(batch: Batch) -> np.ndarray:
    return np.asarray(batch.y.best if isinstance(batch.y, Transition) else batch.y)


def _words(shown: Switch, batch: Batch) -> list[str]:
    if isinstance(batch.y, Transition):
        y = batch.y
        return [f"s={s} a={a} r={r:g}" for s, a, r in zip(*map(np.asarray, (y.best, y.action, y.reward)), strict=True)]
    form = "{}" if shown.config.kind == "classification" else "{:.3g}"
    return [form.format(value) for value in _targets(batch).tolist()]
