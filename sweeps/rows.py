"""From the records of a group to tidy metric rows, and from rows to a parquet part.

Columns as in `plasticity.record.COLUMNS`. NaN marks a metric that was not due in a task (ranks at a longer period)
and is dropped; an infinite or NaN loss of a diverged run is kept, since it is what happened, and its score is NaN.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from plasticity.diagnostics import unit_of
from plasticity.errors import UserError
from plasticity.record import COLUMNS, atomic
from tasks.train import Chunk, Record

#: The one file that replaces a finished group's parts. Where it exists, parts beside it are already in it.
COMPACTED = "all.parquet"
TASK_UNITS = {"online_loss": "nats or squared error", "end_loss": "nats or squared error"}
SCORES = ("online_score", "end_score", "online_loss", "end_loss")


def frame(run_ids: list[str], record: Record, chunk: Chunk, index: int, steps: int) -> Any:
    """The rows of a chunk of task `index` for runs in lane order, as a pandas frame.

    Records have leaves `[seeds, methods, (points)]`. `step` of a dense row is the number of updates made by then.
    """
    import pandas as pd

    points = index * steps + np.asarray(chunk.lasts, np.int64) + 1
    columns: dict[str, list[np.ndarray]] = {"run": [], "step": [], "name": [], "layer": [], "value": []}
    names: list[str] = []
    layers: list[str] = [""]
    lanes = len(run_ids)

    def code(items: list[str], item: str) -> int:
        if item not in items:
            items.append(item)
        return items.index(item)

    final: dict[str, Any] = dict(record.final)
    for kind in ("online", "end"):
        if f"{kind}_loss" in final:
            # The arg max of predictions that are no numbers has an accuracy, but it is not a score of anything.
            finite = np.isfinite(np.asarray(final[f"{kind}_loss"]))
            final[f"{kind}_score"] = np.where(finite, final[f"{kind}_score"], np.nan)
    for at, values in ((points, record.dense), (points[-1:], final)):
        for key, array in values.items():
            name, _, layer = key.partition("/")
            value = np.asarray(array, np.float64).reshape(lanes, -1)
            runs, steps_of = np.broadcast_arrays(np.arange(lanes)[:, None], at[None, :])
            keep = ~np.isnan(value) | (name in SCORES)
            columns["run"].append(runs[keep])
            columns["step"].append(steps_of[keep])
            columns["value"].append(value[keep])
            columns["name"].append(np.full(keep.sum(), code(names, name)))
            columns["layer"].append(np.full(keep.sum(), code(layers, layer)))
    joined = {key: np.concatenate(parts) for key, parts in columns.items()}
    units = [unit(name) for name in names]
    kinds = sorted(set(units))
    unit_codes = np.array([kinds.index(u) for u in units])[joined["name"]]

    def text(codes: np.ndarray, of: list[str]) -> Any:
        return pd.Categorical.from_codes(codes, pd.Index(of))  # pyrefly: ignore

    return pd.DataFrame(
        {
            "run_id": text(joined["run"], run_ids),
            "step": joined["step"],
            "task": np.int64(index),
            "name": text(joined["name"], names),
            "layer": text(joined["layer"], layers),
            "value": joined["value"],
            "unit": text(unit_codes, kinds),
        },
        columns=list(COLUMNS),
    )


def unit(name: str) -> str:
    """The unit of a task-level metric or a diagnostic."""
    if name in SCORES:
        return TASK_UNITS.get(name, "share")
    return unit_of(name)


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
    listed = ", ".join(f"'{_quoted(part)}'" for part in parts)
    with atomic(folder / COMPACTED) as aside, duckdb.connect() as connection:
        _copy(connection, f"(SELECT * FROM read_parquet([{listed}]))", aside)
    for part in parts:
        part.unlink()


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
            f"sweeps write parquet and need {error.name}: pip install 'plasticity-suite[analysis]'"
        ) from None
    return duckdb, pandas
