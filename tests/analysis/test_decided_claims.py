"""Verdicts: planted effects, reversals and nulls; Kleene's tables; missing, failed and diverged runs; the ranking."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from synthetic_study import make_study

from analysis import stats
from analysis.load import load
from analysis.outcomes import by_seed
from analysis.ranking import rank
from analysis.summary import summarise_study
from analysis.verdicts import decide, decide_all, judge
from plasticity.claims import AllOf, AnyOf, Contrast, Outcome


def contrast(one, other, *, task="label_reset", margin=0.0, claimed="greater", **window):
    terms = ((1.0, Outcome(task, one, **window)), (-1.0, Outcome(task, other, **window)))
    return Contrast(f"{one} - {other}", terms, claimed, margin)


TRUE = contrast("layer_norm", "none", last=3)
FALSE = contrast("none", "layer_norm", last=3)
OPEN = contrast("layer_norm", "none", last=3, margin=0.225)
TESTS = {"reproduced": TRUE, "not reproduced": FALSE, "undecided": OPEN}


def test_planted_effect_reversal_and_null(loaded):
    study, frame = loaded
    verdicts = {d.claim.id: d.verdict for d in decide_all(frame, study)}
    assert verdicts == {
        "T1": "reproduced",
        "T2": "not reproduced",
        "T3": "undecided",
        "T4": "undecided",
        "T5": "reproduced",
    }


def test_estimate_is_the_iqm_of_the_differences_by_seed(loaded):
    study, frame = loaded
    decided = decide(TRUE, frame, study)
    one, other = (by_seed(frame, study, outcome) for _, outcome in TRUE.terms)
    assert decided.estimate == stats.estimate((one - other).to_numpy())
    assert decided.values == pytest.approx((one - other).to_dict())
    assert decided.estimate.value == pytest.approx(0.22, abs=0.03)


def test_margin_and_direction(loaded):
    study, frame = loaded
    assert decide(contrast("layer_norm", "none", last=3, margin=0.1), frame, study).verdict == "reproduced"
    assert decide(contrast("layer_norm", "none", last=3, margin=0.4), frame, study).verdict == "not reproduced"
    assert (
        decide(contrast("layer_norm", "none", last=3, margin=0.4, claimed="less"), frame, study).verdict == "reproduced"
    )


def test_an_interval_that_touches_the_margin_is_undecided():
    assert judge(0.0, 1.0, "greater", 0.0) == "undecided"
    assert judge(-1.0, 0.0, "less", 0.0) == "undecided"
    assert judge(float("nan"), float("nan"), "greater", 0.0) == "undecided"


@pytest.mark.parametrize(("a", "b"), list(itertools.product(TESTS, repeat=2)))
def test_trees_follow_kleene(loaded, a, b):
    study, frame = loaded
    order = ["not reproduced", "undecided", "reproduced"]
    for test, pick in ((AllOf, min), (AnyOf, max)):
        decided = decide(test((TESTS[a], TESTS[b])), frame, study)
        assert decided.verdict == pick(a, b, key=order.index)


def test_any_of_widens_its_parts(loaded):
    study, frame = loaded
    decided = decide(AnyOf((TRUE, AllOf((FALSE, AnyOf((OPEN, TRUE)))))), frame, study)
    levels = [leaf.estimate.level for leaf in decided.leaves()]
    assert levels == pytest.approx([0.975, 0.975, 0.9875, 0.9875])
    assert decide(AllOf((TRUE, FALSE)), frame, study).parts[0].estimate.level == 0.95
    assert decide(AllOf(()), frame, study).verdict == "undecided"


def test_level_of_the_study_is_used(loaded):
    study, frame = loaded
    wide = decide(TRUE, frame, dataclasses.replace(study, level=0.999)).estimate
    assert wide.high - wide.low > 2 * (
        decide(TRUE, frame, study).estimate.high - decide(TRUE, frame, study).estimate.low
    )


def test_diverged_runs_count_as_zero_and_are_named(flawed):
    study, frame = load(flawed)
    decided = decide(TRUE, frame, study)
    assert decided.estimate.n == 5
    assert decided.values[0] == pytest.approx(-by_seed(frame, study, TRUE.terms[1][1])[0])
    assert "1 diverged run counted as score 0" in decided.note


def test_failed_and_missing_runs(flawed):
    study, frame = load(flawed)
    decided = decide(contrast("l2(1e-3)", "none", last=3), frame, study)
    assert (decided.estimate.n, decided.lost, decided.verdict) == (4, 1, "reproduced")
    assert "1 seed left out" in decided.note
    # Two complete seeds are too few, whatever they say.
    few = decide(contrast("layer_norm", "none", task="input_permutation", last=3), frame, study)
    assert (few.estimate.n, few.lost, few.verdict) == (2, 3, "undecided")
    assert "at least 3 are needed" in few.note
    absent = decide(contrast("crelu", "none", last=3), frame, study)
    assert (absent.estimate.n, absent.verdict) == (0, "undecided")
    assert "no complete run of label_reset with crelu" in absent.note
    assert decide(contrast("none", "none", task="nowhere"), frame, study).verdict == "undecided"


def test_ranking_finds_the_planted_order(loaded):
    study, frame = loaded
    ranking = rank(frame, study)
    assert [s.combination for s in ranking.standings] == ["layer_norm+l2(1e-3)", "layer_norm", "l2(1e-3)", "none"]
    best = ranking.best
    assert best.gain.level == pytest.approx(1 - 0.05 / 3)
    assert best.gain.low > 0.25
    assert best.gap.high < 0
    assert sum(s.share_first for s in ranking.standings) == pytest.approx(1)
    assert all(s.behind.high < 0 for s in ranking.standings[1:])


def test_ranking_does_not_depend_on_the_names_of_the_seeds(loaded):
    study, frame = loaded
    renamed = frame.assign(seed=frame["seed"].map({0: 3, 1: 4, 2: 0, 3: 1, 4: 2}))
    ours, theirs = rank(frame, study), rank(renamed, study)
    for a, b in zip(ours.standings, theirs.standings, strict=True):
        np.testing.assert_allclose(a.score, b.score)


def test_summary_says_it_in_words(loaded, flawed):
    study, frame = loaded
    words = summarise_study(frame, study)
    assert words.headline.startswith("Layer norm + L2 kept the network trainable best: +0.3")
    assert "Every other combination is clearly behind it." in words.paragraphs[1]
    assert "Of 5 claims tested: 2 reproduced, 1 not reproduced and 2 undecided." in words.paragraphs
    study, frame = load(flawed)
    text = " ".join(summarise_study(frame, study).paragraphs)
    assert "Preliminary: 46 of 50 runs have finished." in text
    assert "1 run diverged" in text


def test_one_seed_proves_nothing(tmp_path):
    study, frame = load(make_study(tmp_path, tasks=1, seeds=[0], names=[]))
    assert "1 seed cannot show" in summarise_study(frame, study).headline
    assert {d.verdict for d in decide_all(frame, study)} == {"undecided"}
