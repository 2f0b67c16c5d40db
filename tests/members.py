"""Random members of every family, for property tests: any value that a field's own metadata allows."""

import dataclasses
import math

from hypothesis import strategies as st

from plasticity.errors import UserError
from plasticity.mitigations import mitigations
from plasticity.networks import networks
from plasticity.optimizers import optimizers
from rl.agents import agents
from rl.protocols import protocols
from tasks.base import tasks

FAMILIES = {family.singular: family for family in (mitigations, networks, optimizers, tasks, agents, protocols)}
MEMBERS = [(family.singular, name) for family in FAMILIES.values() for name in family.members()]


def values(field: dataclasses.Field) -> st.SearchStrategy:
    """Values that a field accepts, its default among them."""
    meta = field.metadata
    kind = meta["type"]
    low = meta["ge"] if meta["gt"] is None else meta["gt"]
    if meta.get("choices"):
        drawn = st.sampled_from(meta["choices"])
    elif kind is float:
        drawn = st.floats(low, meta["le"], allow_nan=False, allow_infinity=False, exclude_min=meta["gt"] is not None)
    elif kind is int:
        drawn = st.integers(low, meta["le"] or 10**9)
    elif kind is bool:
        drawn = st.booleans()
    else:
        # One kind of quote at most: text with both cannot be written.
        drawn = st.text(st.characters(exclude_characters="'", exclude_categories=["Cs"]))
    return st.one_of(st.just(field.default), drawn)


@st.composite
def member(draw, family: str, name: str):
    """A member with random fields. Combinations that its `validate` forbids are not drawn."""
    cls = FAMILIES[family].get(name)
    fields = {f.name: draw(values(f)) for f in dataclasses.fields(cls)}
    try:
        return cls(**fields)
    except UserError as error:
        # Of fields that are each in range only `validate` may complain: it speaks of two of them.
        if sum(field in str(error) for field in fields) < 2:
            raise
        return cls()


def same(a, b) -> bool:
    """Equal, and of the same types: 1 is not True, 0 is not 0.0."""
    return a == b and all(
        type(x) is type(y) or (isinstance(x, float) and math.isclose(x, y))
        for x, y in ((getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    )
