"""A study in three files for somebody who has neither the suite nor the folders: all rows, the runs, the central
table."""

from __future__ import annotations

import json
from pathlib import Path

from analysis.load import load
from analysis.metrics import copy_parquet
from analysis.stats import LEVEL
from analysis.tables import late_table
from plasticity.record import atomic


def write_export(study_dir: str | Path, out: Path, level: float = LEVEL) -> list[Path]:
    """Write metrics.parquet, runs.csv and late_scores.csv into `out`; returns the three paths.

    metrics.parquet has every recorded row, per layer too, with task kind, mitigations, seed and status of its run.
    """
    study, frame = load(study_dir, level)
    paths = [out / "metrics.parquet", out / "runs.csv", out / "late_scores.csv"]
    chosen = study.runs[["run_id", "group", "task", "mitigations", "seed", "status"]]
    with atomic(paths[0]) as aside:
        copy_parquet(list(study.runs["group"].unique()), chosen.rename(columns={"task": "task_kind"}), aside)
    configs = [json.dumps(c, sort_keys=True) for c in study.runs["config"]]
    runs = study.runs.drop(columns="group").assign(config=configs)
    for path, table in ((paths[1], runs), (paths[2], late_table(frame, study))):
        with atomic(path) as aside:
            aside.write_text(table.to_csv(index=False, lineterminator="\n"), encoding="utf-8")
    return paths
