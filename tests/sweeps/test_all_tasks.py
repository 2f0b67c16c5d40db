"""The study of all task streams: each takes part, with networks that can learn it, and groups of it can begin."""

import jax
import pytest

from sweeps import program
from sweeps.grouping import groups_of
from sweeps.studies.all_tasks import STUDY, networks
from tasks.base import tasks


@pytest.mark.parametrize("scale", list(STUDY.scales))
def test_every_stream_takes_part_and_fits_its_data(scale):
    runs = STUDY.scale(scale).grid.runs()
    streams = {run.key: run.task for run in runs}
    assert set(streams) == set(tasks.members())
    for task in streams.values():
        task.load()
    assert {run.method.network.name for run in runs if run.key == "label_reset"} <= {"mlp", "cnn"}


@pytest.mark.parametrize("name", list(tasks.members()))
def test_a_group_of_a_stream_begins_with_both_networks(name):
    """Shapes only: what is batched and what is not must fit each kind of problem."""
    runs = [run for run in STUDY.scale("smoke").grid.runs() if run.key == name]
    assert len({str(run.method.network) for run in runs}) == len(networks(name)) == 2
    for group in groups_of(runs, 8):
        data = group.first.task.load()
        state = jax.eval_shape(lambda group=group, data=data: program.begin(group, data))
        (score,) = {leaf.shape[:2] for leaf in jax.tree.leaves(state.learner)}
        assert score == group.shape
