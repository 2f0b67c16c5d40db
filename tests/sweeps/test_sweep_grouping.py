"""From runs to groups and programs: nothing lost, nothing twice, padding that is absence, few compilations."""

from __future__ import annotations

from collections import Counter
from itertools import product

import jax
import pytest
from tiny_study import FINE, close_rows, request, rows, task, tiny

from plasticity import spec
from sweeps import program
from sweeps.command import execute
from sweeps.grid import subsets
from sweeps.grouping import groups_of, programs
from tasks.measure import Measure
from tasks.train import chunks, run_chunk, start

ALL = subsets("layer_norm", "l2(1e-3)", "redo(tau=0.1)", "shrink_perturb")


def structures(groups):
    return {jax.tree.structure(method) for group in groups for method in group.padded}


@pytest.mark.parametrize(("seeds", "lanes"), list(product((1, 3, 7), (1, 2, 5, 16, 1000))))
def test_every_run_is_in_one_group_and_lanes_are_respected(seeds, lanes):
    grid = tiny(ALL, seeds, (task(), task(eps=0.5), "offset_regression")) + tiny(("l2(0.1)",), 2, optimizer=("sgd",))
    runs = grid.runs()
    groups = groups_of(runs, lanes)
    assert Counter(run.id for group in groups for run in group.flat) == Counter(run.id for run in runs)
    assert max(len(group.flat) for group in groups) <= lanes
    assert len({group.id for group in groups}) == len(groups)
    for group in groups:
        assert len({(run.task, run.measure, run.method.network) for run in group.flat}) == 1
        assert len({jax.tree.structure(run.method.optimizer) for run in group.flat}) == 1
        # A crossing: a row has one seed, a column one method.
        assert group.shape == (len(group.seeds), len(group.padded))
        assert all({run.seed for run in row} == {seed} for row, seed in zip(group.runs, group.seeds, strict=True))
        assert all(len({run.method for run in column}) == 1 for column in zip(*group.runs, strict=True))


def test_methods_of_a_group_are_padded_to_one_structure():
    for group in groups_of(tiny(ALL, 2).runs(), 100):
        assert len({jax.tree.structure(method) for method in group.padded}) == 1
        for run, padded in zip(group.runs[0], group.padded, strict=True):
            added = set(padded.mitigations) - set(run.method.mitigations)
            assert set(padded.mitigations) >= set(run.method.mitigations)
            assert all(member == member.neutral() for member in added)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (("layer_norm", "l2(1e-3)"), 2),  # L2 is padded
        (("l2(1e-3)", "l2_init(1e-3)", "weight_decay", "shrink_perturb"), 1),  # penalties, decay and events are
        (("layer_norm", "redo"), 4),  # a reset costs at zero strength, too, and counts differently
        (("redo", "l2"), 2),
        (("leaky_relu", "l2"), 2),  # linearity diagnostics depend on the activation
        (("full_reset", "l2"), 2),  # has no neutral element
    ],
)
def test_number_of_programs(members, expected):
    groups = groups_of(tiny(subsets(*members), 2).runs(), 100)
    assert len(structures(groups)) == programs(groups) == len(groups) == expected


def test_resets_are_never_padded():
    for group in groups_of(tiny(ALL, 1).runs(), 100):
        for run, padded in zip(group.runs[0], group.padded, strict=True):
            assert [m for m in padded.mitigations if m.name == "redo"] == [
                m for m in run.method.mitigations if m.name == "redo"
            ]


def test_strengths_share_a_program_and_sizes_do_not():
    def count(*mitigations):
        groups = groups_of(tiny(mitigations, 1).runs(), 100)
        return len(structures(groups))

    assert count("l2(1e-3)", "l2(1e-2)", "redo(tau=0.1)+l2", "redo(tau=0.2)+l2") == 2
    assert count("redo(tau=0.1, every=5)", "redo(tau=0.1, every=6)") == 2


def test_partial_seeds():
    """After an interruption methods may lack different seeds: each group is still a full crossing."""
    runs = [r for r in tiny(("none", "l2(1e-3)", "l2(1e-2)"), 4).runs() if not (r.label == "none" and r.seed < 3)]
    groups = groups_of(runs, 100)
    assert sorted((group.shape, group.seeds) for group in groups) == [((1, 1), (3,)), ((4, 2), (0, 1, 2, 3))]
    # `none` alone is padded as if nothing had gone before, so it joins the program of its kind.
    assert len(structures(groups)) == 1


@pytest.mark.parametrize(("methods", "seeds", "lanes"), list(product((1, 3, 5, 7), (1, 5, 6), (1, 3, 4, 10, 64))))
def test_blocks_are_few_and_even(methods, seeds, lanes):
    groups = groups_of(tiny([f"l2({i + 1})" for i in range(methods)], seeds).runs(), lanes)
    widths, heights = ({group.shape[axis] for group in groups} for axis in (1, 0))
    for sizes, total in ((widths, methods), (heights, seeds)):
        # One size, and at most one more for the remainder.
        assert len(sizes) <= 2
        assert max(sizes) <= total
        if total % max(sizes) == 0:
            assert len(sizes) == 1
    # No more columns of blocks than the lanes ask for.
    columns = {tuple(spec.to_text(m.mitigations) for m in group.padded) for group in groups}
    assert len(columns) == -(-methods // min(lanes, methods))
    # The widest is as narrow as that number of columns allows: 5 methods on 4 lanes are 3 + 2, not 4 + 1.
    assert max(widths) == -(-methods // len(columns))


@pytest.fixture
def traces(monkeypatch):
    """How often the chunk program is traced, which is once a compilation."""
    count = []
    original = program.run_chunk

    def counted(*arguments):
        count.append(1)
        return original(*arguments)

    monkeypatch.setattr(program, "run_chunk", counted)
    return count


def test_one_compilation_for_all_groups_of_a_shape(traces):
    # A measure of its own, since programs that other tests have compiled would not be traced again.
    measure = Measure(points="off", reference=39)

    def advance(grid, lanes):
        groups = groups_of(grid.runs(), lanes)
        for group in groups:
            data = group.first.task.load()
            span, chunk = chunks(group.first.task.steps, group.first.measure, 100)[0]
            program.advance(group, span, program.begin(group, data), 0, chunk, data)
        return len(groups), programs(groups), len(traces)

    four = ("none", "l2(1e-3)", "l2(1e-2)", "l2(1e-1)")
    assert advance(tiny(four, 2, measure=measure), 2) == (4, 1, 1)
    # Other strengths, learning rate, task dial and seeds: nothing is compiled.
    other = tiny(("l2(0.5)", "l2(0.25)"), 3, (task(eps=0.5),), ("adam(0.1)",), measure)
    assert advance(other, 2) == (3, 1, 1)
    # Another structure is another program.
    assert advance(tiny(("weight_decay(0.1)", "none"), 1, measure=measure), 2) == (1, 1, 2)


def test_rows_do_not_depend_on_padding_nor_on_how_the_sweep_is_cut(tmp_path, finished):
    """`none` computed beside L2 (so with L2 of strength 0), four runs at once; and computed as itself, one by one."""
    assert execute(request(tiny(("none",)), tmp_path / "alone", lanes=1, **FINE)) == 0
    alone, among = rows(tmp_path / "alone"), rows(finished)
    close_rows(alone, among[among["run_id"].isin(alone["run_id"])].reset_index(drop=True))


def test_rows_are_those_of_the_pure_function(finished):
    """Each run id has the numbers of its own seed and strength: no lane is mistaken for another."""
    runs = tiny().runs()
    data = runs[0].task.load()
    [(span, chunk)] = chunks(runs[0].task.steps, runs[0].measure, 100)

    @jax.jit
    def whole(method, seed):
        state, records = start(runs[0].task, method, seed, data), []
        for index in range(3):
            state, record = run_chunk(
                runs[0].task, method, runs[0].measure, span, seed, state, jax.numpy.int32(index), chunk, data
            )
            records.append(record.final)
        return records

    found = rows(finished).set_index(["run_id", "task", "name"])["value"]
    padded = {
        run.id: p
        for group in groups_of(runs, 16)
        for row in group.runs
        for run, p in zip(row, group.padded, strict=True)
    }
    for run in runs:
        for index, final in enumerate(whole(padded[run.id], run.seed)):
            for name in ("online_loss", "end_loss"):
                assert found[run.id, index, name] == pytest.approx(float(final[name]), rel=1e-4)
    assert found.xs("end_loss", level="name").nunique() == 4 * 3


def test_a_run_alone_equals_the_run_among_64(tmp_path):
    """Each mitigation draws, decides and trains as it would alone, whatever its neighbours do."""
    chain = "layer_norm+redo(tau=0.5, every=4)+shrink_perturb(shrink=0.9)+l2({})"
    strengths = [2 * 10.0**-i for i in range(1, 9)]
    many = tiny([chain.format(s) for s in strengths], 8)
    assert execute(request(many, tmp_path / "many", lanes=64)) == 0
    one = many.runs()[8 * 4 + 5]
    assert (one.seed, one.label) == (5, "layer_norm+l2(2e-5)+redo(tau=0.5, every=4)+shrink_perturb(shrink=0.9)")
    alone = request(tiny([one.label], 8), tmp_path / "alone", lanes=1)
    assert execute(type(alone)(**{**vars(alone), "runs": [one]})) == 0
    both = rows(tmp_path / "many", with_group=True)
    assert both["group"].nunique() == 1
    assert both["run_id"].nunique() == 64
    single = rows(tmp_path / "alone")
    assert set(single["run_id"]) == {one.id}
    close_rows(single, both[both["run_id"] == one.id].drop(columns="group").reset_index(drop=True))
