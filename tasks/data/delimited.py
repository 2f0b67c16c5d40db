"""Rows of numbers in a text file (csv): features and one column of labels.

The separator is a comma, semicolon or tab, whichever the first line has most of. The first line is a header if one of
its cells is no number where the second line has one. The label is the last column, or one named in the header; labels
may be text. Every other cell must be a finite number: where one is missing or is none, the message says in which row,
line and column.
"""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Callable
from typing import IO, NamedTuple, NoReturn

import numpy as np

from plasticity.errors import UserError, unknown

SEPARATORS = (",", ";", "\t")
MISSING = ("", "?", "na", "n/a", "nan", "null", "none", "-", ".")
#: What reading raises where the file is damaged; a csv that holds the wrong things raises ValueError.
DAMAGED = (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError, csv.Error)

Open = Callable[[], IO[bytes]]


class Shape(NamedTuple):
    """separator; names of the columns; lines up to the header's, 0 without one; place of the label; is it a number."""

    separator: str
    columns: list[str]
    skip: int
    label: int
    numeric: bool


def read(open_file: Open, where: str, label: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 `[rows, columns - 1]` and labels `[rows]`, numbers or text. `open_file` may be called often."""
    try:
        shape = _shape(open_file, where, label)
        try:
            values, labels = _columns(open_file, shape)
        except ValueError as error:
            _complain(open_file, where, shape, str(error))
        if not np.isfinite(values).all() or (shape.numeric and not np.isfinite(labels).all()):
            _complain(open_file, where, shape, "a number is not finite")
    except DAMAGED as error:
        raise UserError(f"{where} is truncated or damaged ({error})") from None
    return values, labels


def _columns(open_file: Open, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    features = [i for i in range(len(shape.columns)) if i != shape.label]
    if not shape.numeric:
        return _numbers(open_file, shape, features), _texts(open_file, shape)
    table = _numbers(open_file, shape, None)
    if table.shape[1] != len(shape.columns):
        raise ValueError("the header has another number of columns")
    return table[:, features], table[:, shape.label]


def _lines(open_file: Open) -> io.TextIOWrapper:
    return io.TextIOWrapper(open_file(), encoding="utf-8-sig", errors="replace", newline="")


def _shape(open_file: Open, where: str, label: str | None) -> Shape:
    with _lines(open_file) as file:
        before, first = next(((i, line) for i, line in enumerate(file) if line.strip()), (0, ""))
        second = next((line for line in file if line.strip()), "")
    separator = max(SEPARATORS, key=first.count)
    head, row = (next(csv.reader([line], delimiter=separator), []) for line in (first, second))
    if len(head) < 2:
        raise UserError(f"{where}: a line must have features and a label, found {first.strip()[:60]!r}")
    named = any(not _is_number(cell) and not _is_missing(cell) for cell in head[:-1])
    if not named and not _is_number(head[-1]) and row and _is_number(row[-1]):
        named = True
    columns = [cell.strip() for cell in head] if named else [str(i + 1) for i in range(len(head))]
    if named and not row:
        raise UserError(f"{where} has a header and no rows")
    if label is not None and label not in columns:
        raise unknown(f"column of {where}", label, columns)
    place = len(columns) - 1 if label is None else columns.index(label)
    cell = (row if named else head)[place : place + 1]
    return Shape(
        separator,
        columns,
        before + 1 if named else 0,
        place,
        bool(cell) and (_is_number(cell[0]) or _is_missing(cell[0])),
    )


def _is_missing(cell: str) -> bool:
    return cell.strip().lower() in MISSING


def _is_number(cell: str) -> bool:
    try:
        return not _is_missing(cell) and np.isfinite(float(cell))
    except ValueError:
        return False


def _numbers(open_file: Open, shape: Shape, columns: list[int] | None) -> np.ndarray:
    with _lines(open_file) as file:
        return np.loadtxt(
            file,
            np.float32,
            comments=None,
            delimiter=shape.separator,
            skiprows=shape.skip,
            usecols=columns,
            ndmin=2,
            quotechar='"',
        )


def _texts(open_file: Open, shape: Shape) -> np.ndarray:
    with _lines(open_file) as file:
        rows = [row for row in csv.reader(file, delimiter=shape.separator) if row][bool(shape.skip) :]
    if any(len(row) != len(shape.columns) or _is_missing(row[shape.label]) for row in rows):
        raise ValueError("a label is missing")
    return np.array([row[shape.label].strip() for row in rows])


def _complain(open_file: Open, where: str, shape: Shape, otherwise: str) -> NoReturn:
    """Raise the `UserError` of the first cell that cannot be used."""
    with _lines(open_file) as file:
        reader, number = csv.reader(file, delimiter=shape.separator), -bool(shape.skip)
        for row in reader:
            if not row:
                continue
            number += 1
            if number < 1:
                continue
            if len(row) != len(shape.columns):
                raise UserError(
                    f"{where}, row {number} (line {reader.line_num}): {len(shape.columns)} columns are expected, "
                    f"found {len(row)}"
                )
            for i, (cell, name) in enumerate(zip(row, shape.columns, strict=True)):
                at = f"{where}, row {number} (line {reader.line_num}), column {name!r}"
                if _is_missing(cell):
                    raise UserError(
                        f"{at}: the value is missing ({cell.strip()!r}); leave such rows out, or fill them, "
                        "for example with the value before"
                    )
                if not _is_number(cell) and (i != shape.label or shape.numeric):
                    raise UserError(
                        f"{at}: a finite number is expected, found {cell.strip()!r}; leave out a column of text, "
                        "or give each of its values a column of 0 and 1"
                    )
    raise UserError(f"{where} cannot be read: {otherwise}")
