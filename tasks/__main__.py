"""`python -m tasks`: list the task streams, describe one, look at one.

    python -m tasks list
    python -m tasks describe label_reset
    python -m tasks preview 'label_reset(eps=0.3)' --out preview.png

A command is one function in `COMMANDS`; tyro makes its flags and its help from signature and docstring.
A mistake of the user is a message on stderr and exit code 2, never a traceback.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

from plasticity import cli
from plasticity.describe import describe_config, listing
from plasticity.errors import UserError
from plasticity.registry import summary
from plasticity.rng import named, stream
from plasticity.spec import build_one, to_text
from tasks.base import Batch, Task, tasks


def list_() -> None:
    """List the task streams."""
    console = Console(highlight=False)
    console.print(listing("task streams", [_row(name, cls) for name, cls in tasks.members().items()]))
    console.print("python -m tasks describe NAME  shows the fields of one", style="dim")


def _row(name: str, cls: type[Task]) -> tuple[str, str, str]:
    # Without the fields, of which every stream has many.
    return name, f"{summary(cls)} ({cls.kind})", cls.reference


def describe(name: tyro.conf.Positional[str]) -> None:
    """Show what a task stream is, its fields and its source.

    Args:
        name: a task stream, as `list` shows it.
    """
    cls = tasks.get(name)
    what = f"{cls.kind}; score: {cls.score_label}"
    # What is particular to the stream before what every task has.
    describe_config(Console(highlight=False), name, cls, what, last=[f.name for f in dataclasses.fields(Task)])  # pyrefly: ignore


def preview(
    spec: tyro.conf.Positional[str],
    out: Path,
    task: int = 1,
    samples: Annotated[int, tyro.conf.arg(metavar="EXAMPLES")] = 8,
    seed: int = 0,
) -> None:
    """Draw a few examples with their labels or targets before and after a switch.

    Args:
        spec: a task stream with its fields, such as 'label_reset(eps=0.3)'.
        out: the picture to write; the ending chooses the format (png, pdf, svg).
        task: number of the task (from 0) that the switch leads to.
        samples: examples to draw.
        seed: seed of the stream, as in a run.
    """
    config = build_one(spec, tasks)
    if not 1 <= task < config.num_tasks:
        raise UserError(f"--task must be at least 1 and below num_tasks ({config.num_tasks}), got {task}")
    if not 1 <= samples <= config.examples_used:
        raise UserError(f"--samples must be from 1 to examples_used ({config.examples_used}), got {samples}")
    figure_class = _figure_class()
    if out.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UserError(f"--out must end in .png, .pdf or .svg, got {str(out)!r}")
    if not out.parent.is_dir():
        raise UserError(f"the folder of --out does not exist: {out.parent}")
    data = config.load()
    before, after = switch(config, data, task, samples, seed)
    _draw(figure_class, config, data, task, before, after).savefig(out, dpi=150)
    print(f"wrote {out}")


def switch(config: Task, data: Any, task: int, samples: int, seed: int) -> tuple[Batch, Batch]:
    """The first `samples` examples under the contexts of task `task - 1` and of task `task`."""
    key = stream(seed, "task")
    advance = jax.jit(config.advance)
    # The keys of a run, so that this is the stream that the run sees.
    state = jax.jit(config.init)(named(key, "first"), data)
    for index in range(1, task + 1):
        state = advance(state, jax.random.fold_in(key, index), jnp.int32(index), data)
    indices = jnp.arange(samples)
    return config.examples(state.previous, indices, data), config.examples(state.current, indices, data)


def _figure_class() -> Callable[..., Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(
            "preview draws with matplotlib, which is not installed; "
            "install the analysis extra: pip install 'plasticity-suite[analysis]'"
        ) from None
    return Figure


def _draw(figure_class: Callable[..., Any], config: Task, data: Any, task: int, before: Batch, after: Batch):
    samples = len(before.y)
    figure = figure_class(figsize=(1.2 * samples + 0.8, 3.6), layout="constrained")
    figure.suptitle(to_text(config), fontsize=9)
    axes = figure.subplots(2, samples, squeeze=False)
    changed = np.asarray(before.y) != np.asarray(after.y)
    for row, (batch, index) in enumerate(((before, task - 1), (after, task))):
        # From the normalised inputs and not from the stored images, so that a changed input is seen.
        images = np.clip(np.asarray(batch.x * data.std + data.mean), 0, 1)
        for i, axis in enumerate(axes[row]):
            axis.imshow(images[i].squeeze(), cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            value = f"{int(batch.y[i])}" if config.kind == "classification" else f"{float(batch.y[i]):.3g}"
            # Bold, not only coloured: it must be seen in print and by everyone.
            new = bool(row and changed[i])
            axis.set_title(value, fontsize=9, fontweight="bold" if new else "normal")
        axes[row][0].set_ylabel(f"task {index}")
    what = "label" if config.kind == "classification" else "target"
    figure.supxlabel(f"above each example its {what}; bold: changed at the switch", fontsize=8)
    return figure


COMMANDS: dict[str, Callable[..., None]] = {"list": list_, "describe": describe, "preview": preview}


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, or 2 for a mistake of the user."""
    return cli.run("python -m tasks", "Nonstationary supervised task streams.", COMMANDS, args)


if __name__ == "__main__":
    sys.exit(main())
