"""Tasks of unequal lengths in a sweep: steps on disk, resuming, and what analysis makes of them."""

from __future__ import annotations

import pytest
from tiny_study import BARE, after, laid_out, options, request, rows, same_rows, tiny

from analysis.diagnostics import since_switch
from analysis.load import load
from plasticity.folder import Stopped
from plasticity.record import read_json
from sweeps import compute, store
from sweeps.command import execute
from tasks.measure import Measure

# 8, 12 and 16 examples in batches of 4: tasks of 6, 9 and 12 updates.
GROWING = "warm_start(0.5, num_tasks=3, epochs=3, batch_size=4, examples_used=16, pool=4)"
STOPPING = GROWING.replace("epochs=3", "epochs=30, stop_at=0.9")


def grid(task, measure=BARE):
    return tiny(tasks=(task,), mitigations=("none", "l2(1e-3)"), measure=measure)


@pytest.mark.parametrize("task", [GROWING, STOPPING])
def test_stopped_in_the_middle_of_a_task_and_resumed(tmp_path, task):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert execute(request(grid(task), whole)) == 0
    [(path, group)] = laid_out(parts, grid(task))
    with pytest.raises(Stopped):
        compute.compute(path, group, options(stop=after(4), chunk_updates=5))
    told = []
    assert compute.compute(path, store.load_group(path), options(progress=told.append, chunk_updates=5))
    same_rows(parts, whole)
    # What lay behind and what was done add up to all updates of four runs.
    expected = {GROWING: 6 + 9 + 12, STOPPING: 60 + 90 + 120}[task]
    assert sum(told) == 4 * expected > sum(told[1:])


def test_a_task_ends_at_its_own_step(tmp_path):
    assert execute(request(grid(GROWING), tmp_path / "study")) == 0
    ends = rows(tmp_path / "study").groupby("task")["step"].max()
    assert ends.tolist() == [6, 15, 27]
    assert read_json(tmp_path / "study" / "study.json")["tasks"][0]["steps"] == [6, 9, 12]


def test_updates_to_learn_a_task_are_recorded(tmp_path):
    assert execute(request(grid(STOPPING), tmp_path / "study")) == 0
    found = rows(tmp_path / "study")
    taken = found[found["name"] == "updates_taken"]
    assert len(taken) == 4 * 3
    assert set(taken["unit"]) == {"updates"}
    assert taken["value"].between(2, 120).all()
    assert (taken["value"] < 120).any()


def test_analysis_counts_steps_from_each_switch(tmp_path):
    measure = Measure(points="dense", ranks_every=0)
    assert execute(request(grid(GROWING, measure), tmp_path / "study")) == 0
    study, frame = load(tmp_path / "study")
    assert study.tasks[0].steps == (6, 9, 12)
    assert [study.tasks[0].before(i) for i in range(4)] == [0, 6, 15, 27]
    shown = since_switch(frame, study, 2)
    weights = shown[shown["name"] == "weight_norm"]
    # Measured after 1, 2, 4, 8 updates and at the end of the second and the third task.
    assert sorted(weights["since"].unique()) == [1, 2, 4, 8, 9, 12]
