"""Images in parquet and Arrow files, as Hugging Face's libraries store them. Read by pyarrow, the `data` extra.

A row is an example: an image as `struct<bytes, path>` (or plain bytes) that holds a PNG or JPEG file, and a whole
number as its label. The columns are those named image or img, and label or fine_label, else the first of such a kind.
Parquet begins with `PAR1`, an Arrow file with `ARROW1`, an Arrow stream with `ff ff ff ff`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from plasticity.errors import UserError
from tasks.data import memory, pictures
from tasks.data.optional import need

PARQUET = b"PAR1"
ARROW_FILE = b"ARROW1"
ARROW_STREAM = b"\xff\xff\xff\xff"
IMAGES = ("image", "img")
LABELS = ("label", "labels", "fine_label")


def read_pair(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `[n, height, width(, 3)]` and labels `[n]`. Raises `UserError` if they are not there."""
    table = read(path)
    types = need("pyarrow.types", str(path))
    image = _column(path, table, "images", IMAGES, lambda kind: _is_file(types, kind))
    label = _column(path, table, "labels", LABELS, types.is_integer)
    content = table.column(image)
    if types.is_struct(content.type):
        content = need("pyarrow.compute", str(path)).struct_field(content, "bytes")
    if content.null_count:
        raise UserError(
            f"{path}: {content.null_count} images of column {image!r} are not in the file (only their paths are)"
        )
    if table.column(label).null_count:
        raise UserError(f"{path}: column {label!r} lacks {table.column(label).null_count} labels")
    labels = table.column(label).to_numpy()
    return pictures.decode(content.to_pylist(), str(path)), labels


def read(path: Path) -> Any:
    """The file as a `pyarrow.Table`."""
    arrow = need("pyarrow", f"{path} is a parquet or Arrow file: reading it")
    memory.require(path.stat().st_size, str(path))
    with path.open("rb") as file:
        begins = file.read(len(ARROW_FILE))
    try:
        if begins.startswith(PARQUET):
            return need("pyarrow.parquet", str(path)).ParquetFile(path).read()
        with path.open("rb") as file:
            ipc = need("pyarrow.ipc", str(path))
            return (ipc.open_file if begins == ARROW_FILE else ipc.open_stream)(file).read_all()
    except (arrow.ArrowException, OSError, EOFError) as error:
        raise UserError(f"{path} is truncated or damaged ({str(error).splitlines()[0]})") from None


def _is_file(types: Any, kind: Any) -> bool:
    if types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return types.is_binary(kind) or types.is_large_binary(kind)


def _column(path: Path, table: Any, what: str, preferred: tuple[str, ...], fits: Any) -> str:
    possible = [field.name for field in table.schema if fits(field.type)]
    if not possible:
        found = ", ".join(f"{field.name} ({str(field.type)[:40]})" for field in table.schema) or "none"
        raise UserError(f"{path} has no column of {what}; found {found}")
    return next((name for name in preferred if name in possible), possible[0])
