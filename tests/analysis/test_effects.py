"""Effects of single mitigations: paired gains by hand, what they are added to, and the file that the library reads."""

import json

import pytest

from analysis.__main__ import main
from analysis.effects import effects
from analysis.outcomes import late
from analysis.stats import iqm
from plasticity import measured
from plasticity.errors import UserError


def test_gains_are_paired_by_seed(loaded):
    study, frame = loaded
    found = {(e.spec, e.beside, e.task): e for e in effects(frame, study)}
    values = late(frame, study)
    own = values[values["task"] == "label_reset"].pivot_table(
        index="seed", columns="combination", values="value", observed=True
    )
    for spec, beside, arm in (
        ("layer_norm", "none", "layer_norm"),
        ("l2(1e-3)", "layer_norm", "layer_norm+l2(1e-3)"),
        ("layer_norm", "l2(1e-3)", "layer_norm+l2(1e-3)"),
    ):
        effect = found[spec, beside, "random-label reset"]
        assert effect.gain == pytest.approx(float(iqm((own[arm] - own[beside]).to_numpy())), abs=1e-4)
        assert effect.low < effect.gain < effect.high
        assert (effect.mitigation, effect.n) == (spec.partition("(")[0], 5)
        assert effect.study == "factorial, laptop scale"
    assert not [key for key in found if "full_reset" in key[0]]


def test_the_file_is_read_back(folder, tmp_path, monkeypatch):
    path = tmp_path / "effects.json"
    assert main(["effects", str(folder), "--out", str(path)]) == 0
    written = json.loads(path.read_text())
    monkeypatch.setattr(measured.resources, "files", lambda package: tmp_path)
    monkeypatch.setattr(measured, "FILE", "effects.json")
    measured.effects.cache_clear()
    try:
        assert len(measured.effects()) == len(written)
        assert {e.beside for e in measured.of("layer_norm")} == {"none"}
        assert any(str(e).startswith("random-label reset +0.") for e in measured.of("layer_norm"))
        assert measured.of("layer_norm", "l2(1e-3)")
    finally:
        measured.effects.cache_clear()


def test_nothing_to_tell_is_said(tmp_path):
    with pytest.raises(UserError, match="no effect of a single mitigation"):
        measured.write(tmp_path / "x.json", [])
    assert not list(tmp_path.iterdir())
