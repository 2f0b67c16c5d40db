"""Claims are data: through JSON text and back they are equal, and anything else is a `UserError`."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plasticity.claims import AllOf, AnyOf, Claim, Contrast, Outcome, from_json, to_json
from plasticity.errors import UserError

numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.none() | st.integers(1, 100)
outcomes = st.builds(Outcome, st.text(), st.text(), st.text(), counts, counts)
contrasts = st.builds(
    Contrast,
    st.text(),
    st.lists(st.tuples(numbers, outcomes), max_size=3).map(tuple),
    st.sampled_from(["greater", "less"]),
    numbers,
)


def _nodes(part):
    parts = st.lists(part, max_size=3).map(tuple)
    return st.builds(AllOf, parts, st.text()) | st.builds(AnyOf, parts, st.text())


trees = st.recursive(contrasts, _nodes, max_leaves=5)


@given(st.builds(Claim, st.text(), st.text(), st.text(), trees))
def test_a_claim_reads_back_equal(claim):
    assert from_json(json.loads(json.dumps(to_json(claim)))) == claim


def test_whole_weights_become_floats():
    contrast = Contrast("x", ((1, Outcome("t", "none")),))
    weight = from_json(to_json(contrast)).terms[0][0]
    assert weight == 1
    assert isinstance(weight, float)


GOOD = to_json(Claim("C1", "s", "src", AllOf((Contrast("x", ((1.0, Outcome("t", "none")),)),))))


@pytest.mark.parametrize(
    "data",
    [
        None,
        [1],
        "claim",
        {},
        {"kind": "Verdict"},
        {"kind": "Outcome", "task": "t"},
        {"kind": "Outcome", "task": "t", "mitigations": "none", "extra": 1},
        {"kind": "Contrast", "name": "x", "terms": [[1.0]]},
        {"kind": "Contrast", "name": "x", "terms": [["much", to_json(Outcome("t", "none"))]]},
        {"kind": "AllOf", "parts": [None]},
        {**GOOD, "test": None},
        {"kind": ["Claim"]},
    ],
)
def test_anything_else_is_a_user_error(data):
    assert from_json(GOOD).id == "C1"
    with pytest.raises(UserError, match="not a claim"):
        from_json(data)
