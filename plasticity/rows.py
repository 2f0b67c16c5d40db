"""From measured values to tidy metric rows, and from rows to parquet parts that are written whole.

Columns as in `plasticity.record.COLUMNS`. pandas and duckdb are imported when rows are written, so that a group needs
them and `import plasticity` does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plasticity.errors import UserError
from plasticity.record import COLUMNS, atomic

#: The one file that replaces a finished group's parts. Where it exists, parts beside it are already in it.
COMPACTED = "all.parquet"

#: Steps `[points]`, and values by `name[/layer]` that reshape to `[lanes, points]`.
Readings = tuple[np.ndarray, Mapping[str, Any]]


def tidy(
    run_ids: list[str],
    task: int,
    readings: Iterable[Readings],
    unit: Callable[[str], str],
    keep: Sequence[str] = (),
) -> Any:
    """The rows of some readings within one task, for runs in lane order, as a pandas frame.

    A NaN marks a value that was not due and is dropped, except of the names in `keep`.
    """
    import pandas as pd

    columns: dict[str, list[np.ndarray]] = {"run": [], "step": [], "name": [], "layer": [], "value": []}
    names: list[str] = []
    layers: list[str] = [""]
    lanes = len(run_ids)

    def code(items: list[str], item: str) -> int:
        if item not in items:
            items.append(item)
        return items.index(item)

    for at, values in readings:
        for key, array in values.items():
            name, _, layer = key.partition("/")
            value = np.asarray(array, np.float64).reshape(lanes, -1)
            runs, steps = np.broadcast_arrays(np.arange(lanes)[:, None], np.asarray(at)[None, :])
            kept = ~np.isnan(value) | (name in keep)
            columns["run"].append(runs[kept])
            columns["step"].append(steps[kept])
            columns["value"].append(value[kept])
            columns["name"].append(np.full(kept.sum(), code(names, name)))
            columns["layer"].append(np.full(kept.sum(), code(layers, layer)))
    joined = {key: np.concatenate(parts) if parts else np.zeros(0, np.int64) for key, parts in columns.items()}
    units = [unit(name) for name in names]
    kinds = sorted(set(units))
    unit_codes = np.array([kinds.index(u) for u in units], np.int64)[joined["name"].astype(np.int64)]

    def text(codes: np.ndarray, of: list[str]) -> Any:
        return pd.Categorical.from_codes(codes, pd.Index(of, dtype=object))  # pyrefly: ignore

    return pd.DataFrame(
        {
            "run_id": text(joined["run"], run_ids),
            "step": joined["step"],
            "task": np.int64(task),
            "name": text(joined["name"], names),
            "layer": text(joined["layer"], layers),
            "value": joined["value"],
            "unit": text(unit_codes, kinds),
        },
        columns=list(COLUMNS),
    )


def write_part(path: Path, frames: list[Any]) -> None:
    """Write the rows of several chunks as one parquet part, atomically."""
    duckdb, pd = _require()
    text = ["run_id", "name", "layer", "unit"]
    rows = pd.concat([f.astype(dict.fromkeys(text, "str")) for f in frames], ignore_index=True)
    with atomic(path) as aside, duckdb.connect() as connection:
        connection.register("rows", rows)
        _copy(connection, "rows", aside)


def compact(folder: Path) -> None:
    """Join the parts of a finished group into one file. A reader that finds the joined file ignores parts beside it."""
    duckdb, _ = _require()
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        return
    listed = ", ".join(f"'{_quoted(part)}'" for part in parts)
    with atomic(folder / COMPACTED) as aside, duckdb.connect() as connection:
        _copy(connection, f"(SELECT * FROM read_parquet([{listed}]))", aside)
    for part in parts:
        part.unlink()


def copy_runs(folder: Path, to: Path, run_ids: Sequence[str]) -> None:
    """Copy the rows of some runs from one metrics folder to another, as one file, atomically."""
    duckdb, _ = _require()
    # A joined file stands for the parts that may still lie beside it.
    parts = sorted(folder.glob(COMPACTED)) or sorted(folder.glob("part-*.parquet"))
    if not parts:
        return
    to.mkdir(parents=True, exist_ok=True)
    listed = ", ".join(f"'{_quoted(part)}'" for part in parts)
    ids = ", ".join(f"'{run_id}'" for run_id in run_ids)
    with duckdb.connect() as connection, atomic(to / COMPACTED) as aside:
        _copy(connection, f"(SELECT * FROM read_parquet([{listed}]) WHERE run_id IN ({ids}))", aside)


def _copy(connection: Any, source: str, path: Path) -> None:
    """Write a table to a parquet file. A write that fails (a full disk) is an `OSError`, as for any other file."""
    duckdb, _ = _require()
    try:
        connection.execute(f"COPY {source} TO '{_quoted(path)}' (FORMAT parquet, COMPRESSION zstd)")
    except duckdb.Error as error:
        raise OSError(str(error)) from error


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _require() -> tuple[Any, Any]:
    try:
        import duckdb
        import pandas
    except ImportError as error:
        raise UserError(
            f"records are parquet and need {error.name}: pip install 'plasticity-suite[analysis]'"
        ) from None
    return duckdb, pandas
