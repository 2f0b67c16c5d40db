"""`python -m tasks`: list the task streams, describe one, look at one.

    python -m tasks list
    python -m tasks describe label_reset
    python -m tasks preview 'label_reset(eps=0.3)' --out preview.png
    python -m tasks gallery --out gallery.png
    python -m tasks data list

A command is one function in `COMMANDS`; tyro makes its flags and its help from signature and docstring.
A mistake of the user is a message on stderr and exit code 2, never a traceback.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from plasticity import cli
from plasticity.describe import describe_config, listing
from plasticity.errors import UserError
from plasticity.registry import summary
from plasticity.spec import build_one
from tasks.base import Task, tasks


def list_() -> None:
    """List the task streams."""
    console = Console(highlight=False)
    console.print(listing("task streams", [_row(name, cls) for name, cls in tasks.members().items()]))
    console.print("python -m tasks describe NAME  shows the fields of one", style="dim")


def _row(name: str, cls: type[Task]) -> tuple[str, ...]:
    # Without the fields, of which every stream has many.
    known = f"published: {', '.join(cls.protocols)}" if cls.protocols else ""
    return name, f"{summary(cls)} ({cls.kind})", cls.levels, cls.reference, known


def describe(name: tyro.conf.Positional[str]) -> None:
    """Show what a task stream is, its levels, its fields, its source, and published protocols as config text.

    Args:
        name: a task stream, as `list` shows it.
    """
    cls = tasks.get(name)
    console = Console(highlight=False)
    what = f"{cls.kind}; score: {cls.score_label}"
    # What is particular to the stream before what every task has.
    common = [f.name for f in dataclasses.fields(Task)]  # pyrefly: ignore
    describe_config(console, name, cls, what, last=common)
    console.print(f"levels: {cls.levels}", markup=False)
    for title, text in cls.protocols.items():
        console.print(f"\nas published ({title}):\n    {text}", markup=False, soft_wrap=True)


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
    drawing = _drawing(out)
    shown = drawing.switch(config, config.load(), task, samples, seed)
    drawing.single(shown).savefig(out, dpi=150)
    print(f"wrote {out}")


def gallery(out: Path, samples: Annotated[int, tyro.conf.arg(metavar="EXAMPLES")] = 6, seed: int = 0) -> None:
    """Draw the previews of all task streams, as they are by default, in one picture.

    Args:
        out: the picture to write; the ending chooses the format (png, pdf, svg).
        samples: examples of each task.
        seed: seed of the streams.
    """
    drawing = _drawing(out)
    configs = [build_one(name, tasks) for name in tasks.members()]
    shown = [drawing.switch(config, config.load(), 1, samples, seed) for config in configs]
    drawing.gallery(shown).savefig(out, dpi=100)
    print(f"wrote {out}")


def data(
    action: tyro.conf.Positional[Literal["list", "get"]],
    name: tyro.conf.Positional[str] = "",
    folder: Path | None = None,
) -> None:
    """Data sets by name: list what is known and where it is, or get one, which needs a network.

    Args:
        action: list, or get.
        name: with get: a data set, as `data list` shows it.
        folder: with get: where it goes; default $PLASTICITY_DATA, or a folder in the user's cache.
    """
    from tasks.data.command import get_data, list_data

    if action == "list":
        if name or folder:
            raise UserError(f"data list takes neither a name nor a folder, got {name or folder}")
        list_data()
    elif not name:
        raise UserError("data get needs the name of a data set; python -m tasks data list  shows them")
    else:
        get_data(name, folder)


def _drawing(out: Path) -> Any:
    """The module that draws, once it is sure that it can and where to."""
    try:
        from tasks import preview as drawing
    except ImportError:
        raise UserError(
            "preview draws with matplotlib, which is not installed; "
            "install the analysis extra: pip install 'plasticity-suite[analysis]'"
        ) from None
    if out.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UserError(f"--out must end in .png, .pdf or .svg, got {str(out)!r}")
    if not out.parent.is_dir():
        raise UserError(f"the folder of --out does not exist: {out.parent}")
    return drawing


COMMANDS: dict[str, Callable[..., None]] = {
    "list": list_,
    "describe": describe,
    "preview": preview,
    "gallery": gallery,
    "data": data,
}


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, or 2 for a mistake of the user."""
    return cli.run("python -m tasks", "Nonstationary supervised task streams.", COMMANDS, args)


if __name__ == "__main__":
    sys.exit(main())
