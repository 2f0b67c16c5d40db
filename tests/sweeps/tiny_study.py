"""The smallest sweeps that still have everything: grids, requests to execute them, and what they leave on disk.

All use one network, one task size, one shape of group and (but for the command line, which has no choice) no
diagnostics, so that a test session compiles few programs; compilation is nearly all that such small runs cost.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb
import jax
import pandas as pd

from plasticity.folder import Options, open_study
from plasticity.record import group_folders
from sweeps import store
from sweeps.command import Request
from sweeps.grid import Grid
from sweeps.grouping import Group, groups_of
from sweeps.study import Scale, Study
from tasks.measure import Measure

CLONE = Path(__file__).resolve().parents[2]
#: Two chunks a task at `chunk_updates=3`, and so a save in the middle of a task.
FINE = {"save_seconds": 0.0, "chunk_updates": 3}
LEAN = Measure(points="end", ranks_every=0)
BARE = Measure(points="off")
NETWORK = "mlp(8, 1)"


def task(num_tasks: int = 3, **others: object) -> str:
    """A task of 5 updates."""
    fields = {"steps": 5, "num_tasks": num_tasks, "batch_size": 20, "examples_used": 40, "pool": 4, **others}
    return f"label_reset({', '.join(f'{k}={v}' for k, v in fields.items())})"


def tiny(
    mitigations: Sequence[str] = ("none", "l2(1e-3)"),
    seeds: int = 2,
    tasks: Sequence[str] | Mapping[str, str] = (task(),),
    optimizer: Sequence[str] = ("adam",),
    measure: Measure = BARE,
) -> Grid:
    """A grid of one group: every default shares one compiled program."""
    return Grid(tasks, mitigations, (NETWORK,), optimizer, seeds, measure)


def request(grid: Grid, out: Path, name: str = "tiny", **options) -> Request:
    """What `execute` carries out."""
    runs = grid.runs()
    study = Study(name, "Tiny", "", {"own": lambda: Scale(grid, "")})
    return Request(study.to_json("own", runs), runs, out, **options)


def laid_out(folder: Path, grid: Grid, lanes: int = 16) -> list[tuple[Path, Group]]:
    """The group folders of a grid, planned and not yet computed."""
    open_study(folder, request(grid, folder).description, "sweeps")
    return [(store.save_group(folder, group), group) for group in groups_of(grid.runs(), lanes)]


def options(**changes) -> Options:
    """Save after every chunk, two chunks a task."""
    return Options(**{**FINE, **changes})


def after(count: int):
    """A stop flag that is up from the `count`-th poll on."""
    polls = iter(range(1, count))
    return lambda: next(polls, None) is None


def rows(folder: Path, with_group: bool = False) -> pd.DataFrame:
    """All metric rows of a study in a fixed order, read as a stranger would: joined files first, then parts."""
    frames = []
    for group in group_folders(folder):
        metrics = group / "metrics"
        names = ["all.parquet"] if (metrics / "all.parquet").exists() else ["part-*.parquet"]
        if not any(metrics.glob(names[0])):
            continue
        frame = duckdb.sql(f"SELECT * FROM read_parquet('{metrics / names[0]}')").df()
        frames.append(frame.assign(group=group.name) if with_group else frame)
    joined = pd.concat(frames, ignore_index=True)
    return joined.sort_values(["run_id", "step", "task", "name", "layer"], ignore_index=True)


def same_rows(one: Path, other: Path) -> None:
    """Assert that two studies have exactly the same metric rows: none missing, none twice, no bit different."""
    pd.testing.assert_frame_equal(rows(one), rows(other), check_exact=True)


def close_rows(one: pd.DataFrame, other: pd.DataFrame, examples: int = 40) -> None:
    """Assert that two sets of rows are equal but for the order in which floats were added.

    A score is a share of examples, of which a tie may move one.
    """
    keys = ["run_id", "step", "task", "name", "layer", "unit"]
    pd.testing.assert_frame_equal(one[keys], other[keys])
    score = one["name"].str.endswith("score")
    pd.testing.assert_series_equal(one["value"][~score], other["value"][~score], rtol=1e-3, atol=1e-5)
    pd.testing.assert_series_equal(one["value"][score], other["value"][score], rtol=0, atol=1.01 / examples)


def statuses(folder: Path) -> dict[str, tuple[str, str | None]]:
    """Status and error of every run of a study."""
    return {run_id: (line.status, line.error) for run_id, line in store.lines(folder).items()}


def files(folder: Path) -> set[str]:
    """All files below a folder, by name."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def environment() -> dict[str, str]:
    """For subprocesses: the clone on the path, and this session's compiled programs."""
    cache = jax.config.jax_compilation_cache_dir
    return {**os.environ, "PYTHONPATH": str(CLONE), **({"JAX_COMPILATION_CACHE_DIR": cache} if cache else {})}


def spawn(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """`python -m sweeps ...` in another process, its output in one pipe."""
    command = [sys.executable, "-m", "sweeps", *arguments]
    return subprocess.Popen(
        command, cwd=cwd, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
