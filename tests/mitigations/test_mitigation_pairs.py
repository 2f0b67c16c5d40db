"""Every pair of mitigations composes, in the documented order, or says why it cannot."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lab import HEADS, finite, kind_of, kinds_of, member, method, train

from plasticity.errors import UserError
from plasticity.mitigations import compose, mitigations
from plasticity.networks import Architecture

NAMES = list(mitigations.members())
PAIRS = [*itertools.combinations(NAMES, 2)]
#: One of each kind of hook: who trains with these has met every hook.
CROWD = ("layer_norm", "l2", "weight_decay", "redo", "shrink_perturb")


def possible(a, b) -> str | None:
    """The kind of problem on which the two can stand; None if they cannot, after a look at what is said then."""
    members = [member(a), member(b)]
    stages = {m.stage for m in members}
    if len(stages) == 1 and stages <= set(compose.EXCLUSIVE):
        with pytest.raises(UserError, match=f"{a} and {b} cannot be combined: each sets "):
            compose.canonical(members)
        return None
    kind = kind_of(*members)
    if kind is None and (both := set(kinds_of(members[0])) & set(kinds_of(members[1]))):
        with pytest.raises(UserError, match=f"({a}.* and {b}|{b}.* and {a}).* cannot be combined: "):
            compose.architecture(compose.canonical(members), Architecture(HEADS[both.pop()]))
    return kind


@pytest.mark.parametrize("name", NAMES)
def test_every_pair_composes_or_says_why_not(name):
    """Traced and not run: shapes, types and the structure of states fit, whatever the two do to each other."""
    for a, b in PAIRS:
        if a == name and (kind := possible(a, b)) is not None:
            jax.eval_shape(partial(train, kind=kind), method([member(a), member(b)]), jnp.int32(0))


@pytest.mark.parametrize("name", NAMES)
def test_every_member_trains_in_a_crowd(name):
    """With a member of each kind at once, as far as they can stand beside it."""
    members = [member(name)]
    for other in CROWD:
        if other != name and kind_of(*members, member(other)) is not None:
            members.append(member(other))
    assert len(members) >= 4
    trained_alike(members)


@pytest.mark.slow
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_every_pair_trains(a, b):
    if possible(a, b) is not None:
        trained_alike([member(a), member(b)])


def trained_alike(members):
    # Operation by operation: a program for each would take longer to compile.
    with jax.disable_jit():
        learner, losses = train(method(members), 0, kind_of(*members))
    assert finite(learner)
    assert np.all(np.isfinite(losses))


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_the_order_does_not_depend_on_the_spec(a, b):
    """By stage, then by name, both for the networks' hooks and for the optimiser's."""
    try:
        one = compose.canonical([member(a), member(b)])
    except UserError:
        return
    assert one == compose.canonical([member(b), member(a)])
    keys = [(compose.STAGES.index(m.stage), m.name) for m in one]
    assert keys == sorted(keys)
