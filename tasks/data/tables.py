"""Parquet and Arrow files: images as Hugging Face's libraries store them, and rows of numbers. Read by pyarrow, the
`data` extra.

Of images, a row is an example: an image as `struct<bytes, path>` (or plain bytes) that holds a PNG or JPEG file, and a
whole number as its label. The columns are those named image or img, and label or fine_label, else the first of such a
kind. Parquet begins with `PAR1`, an Arrow file with `ARROW1`, an Arrow stream with `ff ff ff ff`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from plasticity.errors import UserError, unknown
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


def read_rows(path: Path, label: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 `[rows, columns - 1]` and labels `[rows]`: the column `label`, or the last one."""
    table = read(path)
    types, names = need("pyarrow.types", str(path)), table.column_names
    if len(names) < 2:
        raise UserError(
            f"{path}: a table must have columns of features and a label, found {', '.join(names) or 'none'}"
        )
    if label is not None and label not in names:
        raise unknown(f"column of {path}", label, names)
    chosen = label or names[-1]
    features = [name for name in names if name != chosen]
    memory.require(4 * table.num_rows * len(features), str(path))
    values = np.empty((table.num_rows, len(features)), np.float32)
    for name in names:
        column = table.column(name)
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise UserError(
                f"{path}, row {row + 1}, column {name!r}: the value is missing; leave such rows out, or fill them, "
                "for example with the value before"
            )
        if name == chosen:
            continue
        kind = column.type
        if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
            raise UserError(
                f"{path}, column {name!r}: features must be numbers, found {kind}; leave out a column of text, "
                "or give each of its values a column of 0 and 1"
            )
        values[:, features.index(name)] = column.to_numpy()
    labels = table.column(chosen)
    if types.is_dictionary(labels.type):
        labels = labels.cast(labels.type.value_type)
    return values, np.array(labels.to_pylist()) if types.is_string(labels.type) else labels.to_numpy()


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
