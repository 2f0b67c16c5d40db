"""The table of mechanisms and cost: late values by hand, times an update from provenance, and what is left out."""

import pandas as pd
import pytest

from analysis import mechanisms
from analysis.outcomes import late
from analysis.stats import iqm
from analysis.study import NONE, Study


def cell(table, task, combination, name):
    [row] = table[
        (table["task"] == task) & (table["combination"] == combination) & (table["name"] == name)
    ].itertuples()
    return row


def test_values_are_iqms_of_the_late_tasks(loaded):
    study, frame = loaded
    table = mechanisms.table(frame, study)
    assert set(table["name"]) == {"end_score", "online_score", "dead_units", "weight_norm"}
    for name in ("online_score", "dead_units"):
        values = late(frame, study, name)
        own = values[(values["task"] == "label_reset") & (values["combination"] == "layer_norm")]["value"]
        found = cell(table, "label_reset", "layer_norm", name)
        assert found.value == pytest.approx(float(iqm(own.to_numpy())))
        assert found.low < found.value < found.high
        assert found.n == len(own)


def test_times_are_relative_to_no_mitigation():
    runs = pd.DataFrame(
        [
            {"task": "a", "combination": c, "group": f"/somewhere/{g}", "seed": s}
            for c, g in ((NONE, "g0"), ("redo", "g1"), ("l2", "untimed"))
            for s in (0, 1)
        ]
    )
    provenance = (("g0", {"seconds_an_update": 0.002}), ("g1", {"seconds_an_update": 0.005}), ("untimed", {}))
    study = Study("s", (), "s", "", "", (), (), (), None, (), 0, runs, provenance)
    found = mechanisms.cost(study).set_index("combination")["value"]
    assert found[NONE] == 1
    assert found["redo"] == pytest.approx(2.5)
    assert "l2" not in found


def test_the_section_shows_every_combination_best_first(loaded):
    study, frame = loaded
    html = mechanisms.section(frame, study)
    assert html.count("<table") == len(study.tasks)
    first = html.split("</table>")[0]
    scores = late(frame, study)
    own = scores[scores["task"] == study.tasks[0].key].groupby("combination", observed=True)["value"].apply(iqm)
    order = sorted(own.index, key=lambda c: -own[c])
    places = [first.index(f">{study.label(c)}<") for c in order]
    assert places == sorted(places)
    for heading in ("End of task", "Online", "Dead units", "Weight norm"):
        assert heading in first
    assert "srank" not in first  # not recorded
    assert "Time an update" not in first  # not measured


def test_there_is_no_section_without_diagnostics(loaded):
    study, frame = loaded
    scores = frame[frame["name"].isin(["end_score", "online_score"])]
    assert mechanisms.section(scores, study) == ""
