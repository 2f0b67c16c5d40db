"""`python -m tasks data list` and `data get NAME`: which data sets are known, where they are, how to have them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from plasticity.errors import UserError
from tasks.data import places, series, text
from tasks.data.get import get
from tasks.data.load import EMBEDDED
from tasks.data.sources import SOURCES

BUILT_IN = "built in"


def list_data() -> None:
    """List the data sets that have a name: what they are and where they were found, or what would get them."""
    console = Console(highlight=False)
    table = Table(box=SIMPLE_HEAD, title="\ndata sets by name", title_justify="left", pad_edge=False)
    table.add_column("name")
    table.add_column("kind")
    table.add_column("what it is", ratio=3)
    table.add_column("where", ratio=3, overflow="fold")
    for name, kind, what, where in rows():
        here = where is not None
        table.add_row(name, kind, Text(what), Text(where or f"not here: data get {name}", style="" if here else "dim"))
    console.print(table)
    console.print("looked for in", style="dim")
    for whose, folders in places.roots().items():
        console.print(
            f"  {whose}: {', '.join(str(folder.absolute()) for folder in folders)}", style="dim", soft_wrap=True
        )
    console.print(
        "Where data= stands in a task, the path of a file or folder does as well: see docs/data.md", style="dim"
    )


def rows() -> Iterator[tuple[str, str, str, str | None]]:
    """(name, kind, what it is, where it is or None) of every data set."""
    yield "fashion_mnist", "images", "Fashion-MNIST, the 10,000 test images; MIT licence", BUILT_IN
    for name, known in places.SETS.items():
        yield name, "images", f"{known.what}; {sum(known.examples):,} images", _where(places.found, name)
    yield "sea", "stream", "SEA concepts, generated: Street and Kim 2001; 60,000 rows", BUILT_IN
    for name, stream in series.STREAMS.items():
        what = f"{stream.what}; {stream.rows:,} rows, {stream.features} features, {stream.classes} classes"
        yield name, "stream", what, _where(series.find_series, name)
    yield "markov", "text", "a random Markov source, generated; 200,000 tokens of 32", BUILT_IN
    yield "python_docs", "text", "Python's language reference, as its pydoc_data has it", BUILT_IN
    for name, what in text.TEXTS.items():
        yield name, "text", what, _where(text.find_text, name)


def _where(find, name: str) -> str | None:
    try:
        found = find(name)
    except UserError:
        return None
    path = found[0] if isinstance(found, tuple) else found
    return None if path is None else str(path)


def get_data(name: tyro.conf.Positional[str], folder: Path | None = None) -> None:
    """Download a data set, with its checksum; needs a network. Nothing else of the suite ever downloads anything.

    Args:
        name: a data set, as `data list` shows it.
        folder: where it goes; default $PLASTICITY_DATA, or a folder in the user's cache.
    """
    if name in (*EMBEDDED, *series.GENERATED, *text.GENERATED, *text.BUILT_IN):
        print(f"{name} is built in: there is nothing to get")
        return
    here = None if folder else next((where for known, _, _, where in rows() if known == name), None)
    if here and name in SOURCES:
        print(f"{name} is here already: {here}")
        return
    path = get(name, folder)
    print(f"{name} is in {path}")
    if folder is not None and folder.expanduser().absolute() != places.own().absolute():
        print(f"it is found by its name where PLASTICITY_DATA is {folder.expanduser().absolute()}")
