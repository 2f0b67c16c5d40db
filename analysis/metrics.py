"""The parquet parts of a study, read by duckdb: every recorded number once, and the whole-network part of them in
pandas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pandas as pd

from plasticity.errors import UserError
from plasticity.record import COLUMNS

COMPACTED = "all.parquet"  # written last; parts that still lie beside it are in it


def connect(groups: Sequence[str]) -> duckdb.DuckDBPyConnection:
    """A connection with the view `once`: the columns of the record schema and the group folder, each number once.

    A part that was saved, computed again after a crash and saved anew counts with its later copy. NULL values are NaN.
    Raises `UserError` if there are no parts, or naming the part that cannot be read.
    """
    parts = {g: _parts(Path(g) / "metrics") for g in groups}
    parts = {g: found for g, found in parts.items() if found}
    if not parts:
        more = " ..." if len(groups) > 3 else ""
        raise UserError(f"no metrics recorded yet in {', '.join(groups[:3])}{more}")
    connection = duckdb.connect()
    connection.execute("set enable_progress_bar = false")  # it would print into whatever reads our stdout
    reads = []
    for group, found in parts.items():
        _check(connection, found)
        files = ", ".join(_quoted(part) for part in found)
        reads.append(
            f"""select {_quoted(group)} as "group", run_id, step, task, name, coalesce(layer, '') as layer,
                       arg_max(coalesce(value, 'nan'::double), filename) as value, coalesce(any_value(unit), '') as unit
                from read_parquet([{files}], filename = true, union_by_name = true)
                group by run_id, step, task, name, coalesce(layer, '')"""
        )
    connection.execute("create view once as " + " union all ".join(reads))
    return connection


def whole_network(groups: Sequence[str]) -> pd.DataFrame:
    """Rows of the whole network; of numbers that exist per layer only, the mean over layers.

    Columns: group, run_id, name, step, task_index, unit, layer, value.
    """
    while True:
        before = _listed(groups)
        try:
            return _whole_network(groups)
        except (UserError, duckdb.IOException):
            # A group that finishes while it is read joins its parts into one file: then look again.
            if _listed(groups) == before:
                raise


def _whole_network(groups: Sequence[str]) -> pd.DataFrame:
    connection = connect(groups)
    return connection.execute(
        """with whole as (select distinct name from once where layer = '')
           select "group", run_id, name, step, task as task_index, any_value(unit) as unit,
                  case when name in (from whole) then '' else 'mean over layers' end as layer, avg(value) as value
           from once where layer = '' or name not in (from whole)
           group by "group", run_id, name, step, task
           order by run_id, name, step, task"""
    ).df()


def copy_parquet(groups: Sequence[str], runs: pd.DataFrame, path: Path) -> None:
    """Write every number of `runs` (columns run_id, group, task_kind, mitigations, seed, status) to one parquet file.

    duckdb streams it, so that it need not fit into memory.
    """
    connection = connect(groups)
    connection.register("chosen", runs)
    columns = ", ".join(f"once.{name}" for name in COLUMNS)
    connection.execute(
        f"""copy (select {columns}, chosen.task_kind, chosen.mitigations, chosen.seed, chosen.status
                  from once join chosen on once.run_id = chosen.run_id and once."group" = chosen."group"
                  order by once.run_id, once.step, once.name, once.layer)
            to {_quoted(str(path))} (format parquet, compression zstd)"""
    )


def _listed(groups: Sequence[str]) -> list[list[str]]:
    return [_parts(Path(group) / "metrics") for group in groups]


def _parts(folder: Path) -> list[str]:
    """The parquet parts that count: the joined file of a finished group alone, or all parts of an unfinished one."""
    joined = folder / COMPACTED
    return [str(joined)] if joined.is_file() else [str(p) for p in sorted(folder.glob("*.parquet"))]


def _check(connection: duckdb.DuckDBPyConnection, parts: list[str]) -> None:
    """Look at the columns of each part by itself: an error about many files need not name the one at fault."""
    for part in parts:
        try:
            found = connection.execute(f"describe select * from read_parquet({_quoted(part)})").fetchall()
        except duckdb.Error as error:
            raise UserError(f"cannot read {part}: {str(error).splitlines()[0]}") from None
        if missing := [c for c in COLUMNS if c not in {row[0] for row in found}]:
            raise UserError(f"{part} lacks the columns {', '.join(missing)}; allowed: {', '.join(COLUMNS)}")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
