"""Every study at every scale: its grid is possible, its claims speak of runs that exist, its scales are one design."""

from __future__ import annotations

import json

import jax
import pytest
from tiny_study import CLONE

from plasticity import spec
from plasticity.claims import AllOf, AnyOf, Contrast, from_json, to_json
from plasticity.mitigations.base import mitigations
from sweeps import kinds
from sweeps.grouping import groups_of
from sweeps.study import get, studies

CASES = [(name, scale) for name, study in studies().items() for scale in study.scales]
#: A study without claims describes. Its smallest scale shows that everything runs, and may leave arms out.
CLAIMING = [case for case in CASES if studies()[case[0]].scale("laptop").claims]


def contrasts(test):
    """The leaves of a claim's test."""
    if isinstance(test, Contrast):
        return [test]
    assert isinstance(test, AllOf | AnyOf)
    assert test.parts
    return [leaf for part in test.parts for leaf in contrasts(part)]


@pytest.fixture(scope="module")
def built():
    """Scale and runs of every study, built once."""
    scales = {case: studies()[case[0]].scale(case[1]) for case in CASES}
    return {case: (scale, scale.grid.runs()) for case, scale in scales.items()}


def test_every_file_is_a_study():
    found = {path.stem for path in (CLONE / "sweeps" / "studies").glob("*.py")} - {"__init__"}
    assert len(studies()) == len(found) > 0
    for name, study in studies().items():
        assert get(name) is study
        assert name == study.name
        assert study.title
        assert study.description


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_grid_and_cost(built, case):
    scale, runs = built[case]
    assert len({run.id for run in runs}) == len(runs) > 0
    assert scale.cost
    groups = groups_of(runs, 16)
    assert sum(len(group.flat) for group in groups) == len(runs)
    # A contrast is paired by seed: every arm of a task has all seeds.
    seeds = {(run.key, run.label): set() for run in runs}
    for run in runs:
        seeds[run.key, run.label].add(run.seed)
    assert len({frozenset(s) for s in seeds.values()}) == 1


@pytest.mark.parametrize("case", CLAIMING, ids="-".join)
def test_claims_speak_of_runs_that_exist(built, case):
    scale, runs = built[case]
    arms = {(run.key, run.label) for run in runs}
    kind = kinds.only(runs)
    lengths = {run.key: kind.task_json(run)["num_tasks"] for run in {run.key: run for run in runs}.values()}
    assert len({claim.id for claim in scale.claims}) == len(scale.claims) > 0
    for claim in scale.claims:
        assert claim.statement
        assert claim.source
        for contrast in contrasts(claim.test):
            assert contrast.name
            for weight, outcome in contrast.terms:
                assert weight != 0
                assert (outcome.task, outcome.mitigations) in arms, contrast.name
                assert outcome.metric in ("end_score", "probe_loss")
                assert not (outcome.first and outcome.last)
                for window in (outcome.first, outcome.last):
                    assert window is None or 1 <= window <= lengths[outcome.task]


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_description_is_plain_data(built, case):
    scale, runs = built[case]
    study = studies()[case[0]]
    told = json.loads(json.dumps(study.to_json(case[1], runs)))
    assert told["runs"] == len(runs)
    assert [from_json(claim) for claim in told["claims"]] == list(scale.claims)
    assert [to_json(claim) for claim in scale.claims] == told["claims"]
    assert {t["key"] for t in told["tasks"]} == {run.key for run in runs} <= set(study.task_labels)
    for entry in told["tasks"]:
        assert entry.get("chance") is None or 0 <= entry["chance"] < 1
    labels = {run.label for run in runs}
    if case in CLAIMING or case[1] == "laptop":
        assert study.reference is None or study.reference in labels
    # Every part of every combination has a label for figures, but the reference and what stands alone.
    parts = {part for label in labels if "+" in label for part in label.split("+")}
    assert parts <= set(study.factors)
    for text in study.factors:
        assert spec.to_text(spec.build(text, mitigations)) == text, "not canonical"


def skeleton(scale, runs):
    """A study without its sizes and strengths: which arms on which tasks, and what is compared with what."""

    def names(text):
        return tuple(member.name for member in spec.build(text, mitigations))

    def shape(test):
        if isinstance(test, Contrast):
            terms = [
                (w, o.task, names(o.mitigations), o.metric, o.first is None, o.last is None) for w, o in test.terms
            ]
            return terms, test.claimed
        return type(test).__name__, [shape(part) for part in test.parts]

    arms = {(run.key, run.task.name, names(run.label), run.method.network.name) for run in runs}
    return arms, [(claim.id, shape(claim.test)) for claim in scale.claims]


def test_a_part_of_all_mitigations_is_rehearsed(built):
    """Compiling all of them would take CI too long; each is compiled by the contract tests."""
    arms = {case[1]: {(run.key, run.label) for run in built[case][1]} for case in CASES if case[0] == "all_mitigations"}
    assert arms["smoke"] < arms["laptop"] == arms["gpu"]


def test_agents_differ_in_games_only(built):
    """Other games and agents at other scales; the same combinations and claims."""
    cases = [case for case in CASES if case[0] == "agents"]
    combinations = [{tuple(m.name for m in run.method.mitigations) for run in built[case][1]} for case in cases]
    assert all(found == combinations[0] for found in combinations)
    assert len({tuple(claim.id for claim in built[case][0].claims) for case in cases}) == 1


@pytest.mark.parametrize("name", sorted(set(studies()) - {"all_mitigations", "all_tasks", "agents"}))
def test_all_scales_are_the_same_design(built, name):
    """What CI runs at the smoke scale is what the laptop runs: no arm, claim or program without a rehearsal."""
    first, *others = (case for case in CASES if case[0] == name)
    for other in others:
        assert skeleton(*built[first]) == skeleton(*built[other])

    def programs(case):
        groups = groups_of(built[case][1], 10_000)
        return {(group.first.key, tuple(m.name for m in group.padded[0].mitigations)) for group in groups}, len(
            {(group.first.key, jax.tree.structure(group.padded[0])) for group in groups}
        )

    assert len({str(sorted(programs(case)[0])) for case in CASES if case[0] == name}) == 1
    assert len({programs(case)[1] for case in CASES if case[0] == name}) == 1
