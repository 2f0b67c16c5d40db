"""The inline executor: one group after the other in this process. Needs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plasticity.folder import Options, Stopped
from sweeps.kinds import computed


def inline(folders: Sequence[Path], options: Options, workers: int) -> bool:
    """Compute the groups in order. `workers` is not used."""
    ok = True
    for folder in folders:
        if options.stop():
            raise Stopped
        ok = computed(folder, options) and ok
    return ok
