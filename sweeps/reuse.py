"""Take finished runs of other study folders over instead of computing them again.

A run's id is a hash of its whole config, so what one study has computed (the fresh-network reference, runs without
mitigations) is there for all. Rows and provenance are copied into a group of their own; `adopted_from` in its
provenance says where they come from and with which commit they were computed. It is the user who names the folders: a
run is the same only as long as the code is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from plasticity import rows
from plasticity.errors import UserError
from plasticity.record import FINISHED, group_folders, read_json, read_runs, write_json, write_runs
from sweeps import kinds, store


def adopt(folder: Path, others: Sequence[Path], runs: Sequence[kinds.Run]) -> int:
    """Copy what other folders have finished of `runs` and `folder` has not; the number of runs.

    Raises `UserError` if a folder is no study, or the runs are agents, whose policies and replays stay where they are.
    """
    if others and kinds.only(runs).name == "rl":
        raise UserError("--reuse takes runs on task streams over, not agents: their policies are files of their own")
    known = store.lines(folder)
    wanted = {run.id for run in runs if run.id not in known or known[run.id].status not in FINISHED}
    count = 0
    for other in others:
        if not (other / "study.json").is_file():
            raise UserError(f"--reuse: {other} is no study folder: it has no study.json")
        for group in group_folders(other):
            lines = [line for line in read_runs(group) if line.run_id in wanted and line.status in FINISHED]
            if not lines:
                continue
            ids = [line.run_id for line in lines]
            path = folder / "groups" / f"adopted-{hashlib.sha256(' '.join(ids).encode()).hexdigest()[:12]}"
            rows.copy_runs(group / "metrics", path / "metrics", ids)
            made = read_json(group / "provenance.json") if (group / "provenance.json").is_file() else {}
            write_json(path / "provenance.json", {**made, "adopted_from": f"{other.name}/groups/{group.name}"})
            write_runs(path, lines)  # last, so that a group with lines has its rows
            wanted -= set(ids)
            count += len(ids)
    return count
