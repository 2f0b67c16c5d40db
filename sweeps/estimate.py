"""What a sweep will cost, before it is run: programs, memory, and a rough time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sweeps import kinds
from sweeps.grouping import Group, programs

#: Rough seconds to compile a program.
COMPILE_SECONDS = 5.0


class Estimate(NamedTuple):
    """programs: compiled; work: over all runs, in the kind's unit; state_mib: largest group's; data_mib; seconds."""

    programs: int
    work: int
    state_mib: float
    data_mib: float
    seconds: float


def estimate(groups: Sequence[Group], workers: int = 1) -> Estimate:
    """Cost of the groups, to the order of magnitude. Shapes are traced, nothing is computed."""
    costs = [kinds.of(group.first).cost(group) for group in groups]
    count = programs(groups)
    return Estimate(
        count,
        sum(cost.work for cost in costs),
        max((cost.state_mib for cost in costs), default=0.0),
        max((cost.data_mib for cost in costs), default=0.0),
        (sum(cost.seconds for cost in costs) + count * COMPILE_SECONDS) / workers,
    )
