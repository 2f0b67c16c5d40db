"""From a name or a path to `tasks.data.sets.Series`: rows of features and class labels in the order of time.

`load_series(name_or_path, rows, label)`. Names: `sea` (generated, see `sea`), `elec2`, `weather` and `covertype`.
Files: csv (`.gz` too, see `delimited`), npz, parquet, Arrow, and a csv in a zip file such as a wheel. `path:part` says
what is meant of a file: the arrays `part_x` and `part_y` of an npz, the labels' column of a table, `part.csv` of a zip.

Features are returned as they are; a task standardises them as it goes, because a stream's mean is not known before it
ends. Labels become classes: different values, sorted, are 0, 1, ... (so 1 to 7 become 0 to 6; DOWN and UP, 0 and 1).
The classes are those of all rows, also where fewer are asked for.
"""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np

from plasticity.errors import UserError, unknown
from tasks.data import cache, delimited, memory, npz, places, sea, tables
from tasks.data.sets import Series

Rows = tuple[np.ndarray, np.ndarray]

#: More different labels than this are taken for the target of a regression.
MOST_CLASSES = 1000
#: A larger text file is kept as an npz once it is read. Bytes.
SLOW = 8 * 2**20
KEYS = (("x", "y"), ("features", "labels"))
GENERATED: dict[str, Callable[[], Rows]] = {"sea": sea.generate}


class Stream(NamedTuple):
    """`stem`: the name of its csv in the wheel of scikit-multiflow 0.4.1."""

    what: str
    stem: str
    rows: int
    features: int
    classes: int


STREAMS = {
    "elec2": Stream("electricity demand in New South Wales, 1996-98, half-hourly: Harries 1999", "elec", 45_312, 6, 2),
    "weather": Stream("rain in Bellevue, 1949-99, daily, NOAA: Elwell and Polikar 2011", "weather", 18_159, 8, 2),
    "covertype": Stream("forest cover in file order: Blackard and Dean 1999; CC BY 4.0", "covtype", 581_012, 54, 7),
}
#: Where a stream lies in the suite's own folder, in the order of preference.
PATTERNS = ("{name}.npz", "{name}.csv", "{name}.csv.gz", "{name}.parquet", "{name}/*.csv", "{name}/*.csv.gz")
WHEELS = ("scikit_multiflow-0.4.1-*.whl", "scikit-multiflow/scikit_multiflow-0.4.1-*.whl")


def load_series(name_or_path: str, rows: int | None = None, label: str | None = None) -> Series:
    """The first `rows` rows of a stream (None: all of them). `label` names the column of labels in a table.

    Read once per process, and again if the file changes. Raises `UserError` if there is no such stream, or it cannot be
    used as asked.
    """
    if name_or_path in GENERATED:
        return _series(name_or_path, None, "", label, 0, rows)
    path, part = find_series(name_or_path)
    return _series(name_or_path, path.absolute(), part, label, path.stat().st_mtime_ns, rows)


def find_series(name_or_path: str) -> tuple[Path, str]:
    """The file behind a name or a path, and what of it is meant. `UserError` if there is none."""
    if name_or_path in STREAMS:
        return _known(name_or_path)
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path, ""
    before, colon, part = name_or_path.rpartition(":")
    if colon and Path(before).expanduser().is_file():
        return Path(before).expanduser(), part
    if path.is_dir():
        raise UserError(f"{path} is a folder; a stream is one file in it: csv, npz, parquet, Arrow or zip")
    names = [*GENERATED, *STREAMS]
    raise UserError(f"{unknown('stream', name_or_path, names)}, or the path of a csv, npz, parquet, Arrow or zip file")


def _known(name: str) -> tuple[Path, str]:
    own, stem = places.own(), STREAMS[name].stem
    for pattern in PATTERNS:
        for path in sorted(own.glob(pattern.format(name=name))):
            return path, ""
    for pattern in WHEELS:
        for path in sorted(own.glob(pattern)):
            return path, stem
    looked = ", ".join(pattern.format(name=name) for pattern in (*PATTERNS, *WHEELS))
    raise UserError(
        f"stream {name!r} is not on this machine. Get it with  python -m tasks data get {name}  "
        f"or give the path of its file. Looked for in {own}: {looked}"
    )


@lru_cache(maxsize=4)
def _series(name: str, path: Path | None, part: str, label: str | None, modified: int, rows: int | None) -> Series:
    try:
        features, labels = GENERATED[name]() if path is None else _read(path, part, label)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    where = name if path is None else str(path)
    classes, labels = _classes(where, labels)
    if (known := STREAMS.get(name)) and (features.shape[1] != known.features or classes != known.classes):
        raise UserError(
            f"{where} does not hold {name}: it must have {known.features} features and {known.classes} classes, "
            f"found {features.shape[1]} and {classes}"
        )
    if rows is not None and not 1 <= rows <= len(labels):
        raise UserError(f"{where} has {len(labels)} rows, {rows} are asked for")
    return Series.of(features[:rows], labels[:rows], classes)


def _read(path: Path, part: str, label: str | None) -> Rows:
    with path.open("rb") as file:
        begins = file.read(8)
    if begins.startswith(npz.MAGIC):
        inside = _members(path)
        if all(name.endswith(".npy") for name in inside):
            return _checked(path, *_arrays(path, part))
        member = _member(path, inside, part)
        size = zipfile.ZipFile(path).getinfo(member).file_size
        return _text(path, lambda: zipfile.ZipFile(path).open(member), f"{path}:{member}", member, size, label)
    if begins.startswith((tables.PARQUET, tables.ARROW_FILE, tables.ARROW_STREAM)):
        return _checked(path, *tables.read_rows(path, label or part or None))
    packed = begins.startswith(b"\x1f\x8b")
    # Packed text is a quarter of its size or less.
    size = path.stat().st_size * (5 if packed else 1)

    def opened() -> IO[bytes]:
        return cast(IO[bytes], gzip.GzipFile(path)) if packed else path.open("rb")

    return _text(path, opened, str(path), "", size, label or part or None)


def _text(path: Path, opened: delimited.Open, where: str, member: str, size: int, label: str | None) -> Rows:
    memory.require(size, where)
    if size < SLOW:
        return delimited.read(opened, where, label)
    return cache.decoded(path, lambda _: delimited.read(opened, where, label), f"{member}:{label}")


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as file:
            return [name for name in file.namelist() if not name.endswith("/")]
    except npz.DAMAGED as error:
        raise UserError(f"{path} is no whole zip or npz file: it is truncated or damaged ({error})") from None


def _member(path: Path, inside: list[str], part: str) -> str:
    tables_inside = {Path(name).stem: name for name in inside if name.endswith(".csv")}
    if not part and len(tables_inside) == 1:
        return next(iter(tables_inside.values()))
    if part not in tables_inside:
        allowed = ", ".join(f"{path.name}:{stem}" for stem in sorted(tables_inside)) or "(it holds no csv)"
        raise UserError(f"{path}: say which of its csv files is meant; allowed: {allowed}")
    return tables_inside[part]


def _arrays(path: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    found = npz.names(path)
    prefix = f"{part}_" if part else ""
    for keys in KEYS:
        x, y = (prefix + key for key in keys)
        if {x, y} <= set(found):
            features, labels = npz.arrays(path, (x, y))
            return features, labels
    prefixes = sorted({name[:-2] for name in found if name.endswith("_x") and f"{name[:-2]}_y" in found})
    allowed = ", ".join(f"{path.name}:{name}" for name in prefixes)
    hint = f"; say which is meant: {allowed}" if allowed else ""
    raise UserError(f"{path} must hold {prefix}x and {prefix}y; found {', '.join(sorted(found)) or 'nothing'}{hint}")


def _checked(path: Path, features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features as float32 `[rows, features]`, labels `[rows]`. `UserError` if they are not, or a value is missing."""
    if features.ndim != 2 or not (np.issubdtype(features.dtype, np.number) or features.dtype == bool):
        raise UserError(f"{path}: features must be numbers [rows, features], found {features.dtype} {features.shape}")
    if labels.shape not in ((len(features),), (len(features), 1)):
        raise UserError(f"{path}: {len(features)} rows of features, but labels of shape {labels.shape}")
    finite = np.isfinite(features)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise UserError(
            f"{path}, row {row + 1}, column {column + 1}: the value is missing or not finite "
            f"({features[row, column]}); leave such rows out, or fill them, for example with the value before"
        )
    return features.astype(np.float32), labels.ravel()


def _classes(where: str, labels: np.ndarray) -> tuple[int, np.ndarray]:
    """The number of classes, and the class of each row from 0. `UserError` if the labels are no classes."""
    if len(labels) == 0:
        raise UserError(f"{where} has no rows")
    if np.issubdtype(labels.dtype, np.floating):
        wrong = ~np.isfinite(labels) | (labels != np.rint(labels))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise UserError(
                f"{where}, row {row + 1}: labels must be whole numbers or text, one of each class, found {labels[row]}"
            )
    values, classes = np.unique(labels, return_inverse=True)
    if len(values) > MOST_CLASSES:
        raise UserError(
            f"{where}: {len(values)} different labels are no classes (at most {MOST_CLASSES}); name their column"
        )
    if len(values) < 2:
        raise UserError(f"{where}: at least 2 classes are needed, all labels are {values[0]}")
    return len(values), classes
