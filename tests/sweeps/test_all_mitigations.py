"""The study of all mitigations: who takes part where, and that its text is possible."""

from plasticity import spec
from plasticity.mitigations.base import mitigations
from sweeps.studies.all_mitigations import LEFT_OUT, SCALED, STUDY, arms, fits, member

LABELS, TARGETS = "label_reset(pool=4, examples_used=100)", "target_drift(pool=4, examples_used=100)"


def test_every_member_takes_part_alone_on_some_task():
    names = [name for name in mitigations.members() if name not in LEFT_OUT]
    taking = {text for task in (LABELS, TARGETS) for text in arms(task, names)}
    missing = {name for name in names if member(name) not in taking}
    assert missing == {"dr3"}  # it needs an agent's next observations


def test_scaled_members_exist_and_are_not_their_defaults():
    for name, text in SCALED.items():
        (built,) = spec.build(text, mitigations)
        assert built.name == name
        assert built != mitigations.get(name)()


def test_where_members_can_stand():
    assert fits(LABELS, "label_smoothing")
    assert not fits(LABELS, "two_hot")
    assert fits(TARGETS, "two_hot")
    assert not fits(LABELS, "dr3")
    assert not fits(LABELS, "layer_norm", "batch_norm")
    texts = list(arms(LABELS, ["layer_norm", "redo", "batch_norm", "two_hot"]))
    assert texts == ["none", "layer_norm", "redo(every=100)", "layer_norm+redo(every=100)", "batch_norm", "full_reset"]


def test_the_claim_speaks_of_arms_that_are_run():
    scale = STUDY.scale("smoke")
    labels = {run.label for run in scale.grid.runs() if run.key == "label_reset"}
    (claim,) = scale.claims
    spoken = {outcome.mitigations for part in claim.test.parts for _, outcome in part.terms}
    assert spoken <= labels
