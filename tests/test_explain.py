"""The explanation: each sign where it is due and not below, how surely, and nothing claimed without a probe."""

import numpy as np
import pytest

from plasticity.explain import FEWEST, MECHANISMS, explain
from plasticity.mitigations import mitigations
from plasticity.monitor import Reading

STEPS = np.arange(0, 1000, 100)


def readings(steps=STEPS, layer="", **series):
    return [
        Reading(int(step), 0, name, layer, float(value), "")
        for name, values in series.items()
        for step, value in zip(steps, np.broadcast_to(values, len(steps)), strict=True)
    ]


def ramp(early, late):
    """`early` in the first two of ten readings, `late` in the last two."""
    values = np.linspace(early, late, len(STEPS))
    values[:2], values[-2:] = early, late
    return values


def text(rows):
    return " ".join(explain(rows).split())


# Mechanism, series that just shows it, series that just does not.
CASES = [
    ("dead or dormant units", {"dead_units": ramp(0.05, 0.1001)}, {"dead_units": ramp(0.05, 0.0999)}),
    ("dead or dormant units", {"dead_units": ramp(0.4, 0.4501)}, {"dead_units": ramp(0.4, 0.4499)}),
    ("dead or dormant units", {"dormant_units": ramp(0, 0.11)}, {"dormant_units": ramp(0, 0.09)}),
    ("linearised units", {"linearized_units": ramp(0.1, 0.2001)}, {"linearized_units": ramp(0.1, 0.1999)}),
    ("linearised units", {"linearized_units": ramp(0.5, 0.6001)}, {"linearized_units": ramp(0.5, 0.5999)}),
    ("growth of the parameter norm", {"weight_norm": ramp(3, 6.01)}, {"weight_norm": ramp(3, 5.99)}),
    ("loss of rank", {"effective_rank": ramp(10, 6.99)}, {"effective_rank": ramp(10, 7.01)}),
    ("loss of rank", {"srank": ramp(10, 6.99)}, {"srank": ramp(10, 7.01)}),
    (
        "ill-conditioned targets",
        {"target_mean": np.full(10, -5.01), "target_std": np.ones(10)},
        {"target_mean": np.full(10, 4.99), "target_std": np.ones(10)},
    ),
    ("growing targets", {"target_std": ramp(1, 5.01)}, {"target_std": ramp(1, 4.99)}),
]


@pytest.mark.parametrize(("title", "shown", "unshown"), CASES)
def test_a_sign_is_given_where_it_is_due_and_not_just_below(title, shown, unshown):
    assert f"Clear sign of {title}: " in text(readings(**shown))
    below = text(readings(**unshown))
    assert "sign of " + title not in below
    assert "No sign of plasticity loss in what was recorded" in below
    assert title in below  # it was looked for


def test_every_mechanism_has_a_case_and_remedies_that_exist():
    assert {m.title for m in MECHANISMS} == {title for title, *_ in CASES}
    for mechanism in MECHANISMS:
        for name, source in mechanism.remedies:
            assert mitigations.get(name).name == name
            assert "arXiv:" in source
    found = text(readings(dead_units=ramp(0, 0.5)))
    assert "redo (Sokar et al. 2023, arXiv:2302.12902)" in found
    assert "went from 0 to 0.5 (late readings 0.5, n=2)" in found


def test_a_sign_whose_readings_overlap_is_weak():
    values = ramp(0.05, 0.3)
    values[0] = 0.31
    values[1] = 0.0
    assert "Weak sign of dead or dormant units" in text(readings(dead_units=values))
    values[0] = 0.1
    assert "Clear sign of dead or dormant units" in text(readings(dead_units=values))
    level = np.full(10, 5.5)
    level[-1] = 4.9
    rows = readings(target_mean=level, target_std=np.ones(10))
    assert "Weak sign of ill-conditioned targets" in text(rows)


def test_one_doubtful_metric_makes_the_sign_of_two_weak():
    shaky = ramp(10, 3)
    shaky[0] = 2.5
    shaky[1] = 17
    found = text(readings(effective_rank=ramp(10, 3), srank=shaky))
    assert "Weak sign of loss of rank: effective rank went" in found
    assert "; srank went" in found


def test_dense_readings_after_the_start_weigh_what_their_steps_do():
    """The norm grows in the first steps, as any norm may, and then stays for thousands."""
    steps = np.array([0, 1, 2, 4, 8, 16, 32, 64, *range(1000, 10_001, 1000)])
    norm = np.where(steps < 1000, 1.0, 4.0)
    assert "No sign" in text(readings(steps, weight_norm=norm))
    late = np.where(steps > 5000, 4.0, 1.0)
    assert "Clear sign of growth" in text(readings(steps, weight_norm=late))


def test_values_of_layers_are_averaged_unless_there_is_one_of_the_network():
    rows = readings(layer="a", srank=ramp(10, 4)) + readings(layer="b", srank=ramp(20, 8))
    assert "srank went from 15 to 6" in text(rows)
    rows += readings(srank=np.full(10, 9.0))
    assert "No sign" in text(rows)


def test_quantities_that_stay_zero_grow_not():
    found = text(readings(weight_norm=np.zeros(10), target_std=np.zeros(10), target_mean=np.ones(10)))
    assert "No sign of plasticity loss" in found


def test_too_few():
    assert "Too few measurements" in explain([])
    rows = readings(STEPS[: FEWEST - 1], dead_units=[0.0, 0.5, 0.9])
    assert explain(rows) == f"Too few measurements to say anything: 3, and at least {FEWEST} are needed."
    # Losses alone say nothing of a mechanism.
    found = text(rows + readings(loss=np.ones(10)))
    assert "No mechanism can be judged" in found
    assert "No sign" not in found


def test_a_run_that_diverged_is_not_called_healthy():
    norm = ramp(1, 1)
    norm[6:] = np.nan
    found = text(readings(weight_norm=norm))
    assert "Not finite at some point: weight_norm" in found
    assert "diverged" in found
    assert "No sign" not in found


def test_an_infinite_condition_is_no_divergence():
    assert "Not finite" not in text(readings(condition_number=np.full(10, np.inf), weight_norm=np.ones(10)))
    assert "Not finite at some point: loss" in text(readings(loss=np.full(10, np.inf), weight_norm=np.ones(10)))


# --- the probe ------------------------------------------------------------------------------------------------------


def probed(aged, fresh=0.2, **others):
    steps = STEPS[: len(np.atleast_1d(aged))]
    return text(
        readings(**{"dead_units": np.zeros(10), **others}) + readings(steps, probe_loss=aged, probe_loss_fresh=fresh)
    )


LOST = "has lost trainability"


def test_without_a_probe_nothing_is_claimed_however_bad_the_signs():
    rows = readings(dead_units=ramp(0, 1), linearized_units=ramp(0, 1), weight_norm=ramp(1, 99), srank=ramp(99, 1))
    found = text(rows)
    assert found.count("Clear sign of") == 4
    assert LOST not in found
    assert "No probe was recorded, so whether the network learns less well than a fresh one is not known" in found
    assert "No probe was recorded" in text(rows + readings(probe_loss=np.ones(10)))  # no fresh one beside it


def test_one_probe_is_too_few_to_tell():
    found = probed([0.9])
    assert "+0.7 (one probe). One probe is too few to tell." in found
    assert LOST not in found


def test_several_probes_that_agree_show_a_loss():
    found = probed(np.array([0.2, 0.2, 0.2, 0.5, 0.52, 0.51]))
    assert f"+0.31 (standard error 0.0058, n=3). The network {LOST}." in found
    # No mechanism shows a sign, and still there is a loss: it does not say that there is no sign of it.
    assert "No sign of plasticity loss" not in found
    assert "None of the mechanisms that can be judged shows a sign" in found


def test_probes_that_scatter_show_none_and_exclude_none():
    found = probed(np.array([0.2, 0.2, 0.1, 0.9]))
    assert LOST not in found
    assert "No loss of trainability is shown, and none is excluded" in found


def test_two_probes_must_agree_well():
    assert LOST not in probed(np.array([0.3, 0.4]))  # 0.15 +- 0.05, with one degree of freedom
    assert LOST in probed(np.array([0.35, 0.351]))


def test_small_gaps_are_no_loss():
    assert LOST not in probed(np.full(8, 0.2499))
    found = probed(np.full(8, 0.2))
    assert found.endswith("No loss of trainability is shown.")
    assert "No sign of plasticity loss" in found
    assert LOST in probed(np.full(8, 0.2501))


def test_signs_beside_probes_that_show_no_loss():
    found = probed(np.full(8, 0.1), dead_units=ramp(0, 0.5))
    assert "Clear sign of dead or dormant units" in found
    assert found.endswith("No loss of trainability is shown.")


def test_probes_are_paired_by_step():
    rows = readings(dead_units=np.zeros(10))
    rows += readings([0, 100, 200], probe_loss=[9.0, 0.2, 0.2])
    rows += readings([100, 200, 300], probe_loss_fresh=[0.2, 0.2, 0.0])
    assert text(rows).endswith("+0 (standard error 0, n=2). No loss of trainability is shown.")


def test_a_probe_that_diverged_tells_nothing():
    assert "not known from it" in probed(np.array([0.2, 0.2, np.nan, 0.9]))


def test_lines_are_short():
    assert max(map(len, explain(readings(dead_units=ramp(0, 1), srank=ramp(9, 1))).splitlines())) <= 100
