"""What a run records beyond the default, by its measure alone."""

import duckdb
import pytest

from plasticity.errors import UserError
from plasticity.folder import Options
from sweeps import kinds, store
from sweeps.grid import Grid
from sweeps.grouping import groups_of
from tasks.measure import Measure

TASK = "label_reset(steps=30, num_tasks=4, examples_used=60, batch_size=20, pool=2)"


def rows(folder, runs, lanes=16):
    """{(run, step, task, name, layer): value} after computing the runs."""
    for group in groups_of(runs, lanes):
        assert kinds.computed(store.save_group(folder, group), Options())
    found = duckdb.read_parquet([str(p) for p in folder.glob("groups/*/metrics/*.parquet")]).fetchall()
    return {row[:5]: row[5] for row in found}


def test_the_probe_is_taken_at_the_end_of_every_second_task(tmp_path):
    measure = Measure(probe_every=2, probe_updates=20, ranks_every=0)
    runs = Grid({"t": TASK}, ("none", "l2(1e-3)"), ("mlp(16)",), seeds=2, measure=measure).runs()
    found = rows(tmp_path / "together", runs)
    probes = {key: value for key, value in found.items() if key[3].startswith("probe")}
    assert {(key[1], key[2]) for key in probes} == {(60, 1), (120, 3)}
    assert len(probes) == 4 * 2 * 2  # runs, tasks, aged and fresh
    alone = rows(tmp_path / "alone", runs[:1], lanes=1)
    for key in alone.keys() & probes.keys():
        # A copy is trained on targets of high frequency: rounding grows, so not to the last digit.
        assert probes[key] == pytest.approx(alone[key], rel=0.05)


def test_the_probe_does_not_touch_the_run(tmp_path):
    grids = [
        Grid({"t": TASK}, ("none",), ("mlp(16)",), seeds=1, measure=Measure(probe_every=every, probe_updates=20))
        for every in (0, 1)
    ]
    without, probed = (rows(tmp_path / str(i), grid.runs()) for i, grid in enumerate(grids))
    # The ids differ, as the configs do; everything else that both recorded is equal to the bit.
    assert {k[1:]: v for k, v in without.items()} == {
        k[1:]: v for k, v in probed.items() if not k[3].startswith("probe")
    }


def test_unknown_diagnostics_are_told_when_the_measure_is_built():
    with pytest.raises(UserError, match="Did you mean 'dead_units'"):
        Measure(also="dead_unit")
