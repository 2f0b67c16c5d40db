"""One contract for every mitigation; a new file in the family is picked up with no edit. Pairs: see the next file."""

import dataclasses
from collections import Counter
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lab import HEADS, STEPS, finite, kind_of, kinds_of, member, method, quick, train

from plasticity.errors import UserError
from plasticity.mitigations import compose, mitigations
from plasticity.networks import Architecture
from plasticity.spec import build_one
from tasks.base import tasks
from tasks.data import load
from tasks.measure import Measure
from tasks.train import chunks, run_chunk, start

NAMES = list(mitigations.members())
every_member = pytest.mark.parametrize("name", NAMES)
STRENGTHS = [n for n in NAMES if mitigations.get(n)().neutral() is not None and jax.tree.leaves(mitigations.get(n)())]
TRACES = Counter()


@lru_cache
def compiled(kind):
    def counted(method, seed):
        TRACES[kind] += 1
        return train(method, seed, kind)

    return jax.jit(counted)


@lru_cache
def trained(method):
    return compiled(kind_of(*method.mitigations))(method, jnp.int32(0))


def weaker(item):
    """The same member with all strengths halved: another value of each that is not 0."""
    return jax.tree.map(lambda leaf: leaf / 2, item)


def close(a, b, rtol=1e-4, atol=1e-5):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


@every_member
def test_hooks_run_under_jit_and_another_strength_does_not_recompile(name):
    kind = kind_of(member(name))
    assert kind is not None
    learner, losses = trained(method([member(name)]))
    assert losses.shape == (STEPS,)
    assert finite(learner)
    before = TRACES[kind]
    other, _ = compiled(kind)(method([weaker(member(name))]), jnp.int32(0))
    assert TRACES[kind] == before
    assert finite(other)


@every_member
def test_a_strength_has_an_effect(name):
    """Or the other tests compare nothing."""
    if name not in STRENGTHS:
        pytest.skip("a structural choice")
    absent = trained(method([member(name).neutral()]))[0].variables

    def differs(factor):
        strong = jax.tree.map(lambda leaf: min(factor * abs(leaf), 1.0), member(name))
        present = trained(method([strong]))[0].variables
        pairs = zip(jax.tree.leaves(present), jax.tree.leaves(absent), strict=True)
        return any(np.any(np.abs(x - y) > 1e-4) for x, y in pairs)

    # Rates of rare replacements need more than others bear.
    assert differs(100) or differs(1e4)


@pytest.mark.parametrize("name", STRENGTHS)
def test_mapped_over_strengths_equals_one_by_one(name):
    members = [member(name), weaker(member(name)), quick(member(name).neutral())]
    methods = [method([m]) for m in members]
    stacked = jax.tree.map(lambda *leaves: jnp.array(leaves, jnp.float32), *methods)
    kind = kind_of(members[0])
    group = jax.jit(jax.vmap(partial(train, kind=kind), in_axes=(0, None)))(stacked, jnp.int32(0))
    for i, alone in enumerate(methods):
        # A key is the same for all and has a lane of its own all the same.
        close(jax.tree.map(lambda leaf, i=i: leaf[i], group), compiled(kind)(alone, jnp.int32(0)))


OFF = Measure(points="off", ranks_every=0)
DATA = load("fashion_mnist", 16, 4)
STREAMS = {
    "classification": "label_reset(steps=15, num_tasks=2, batch_size=8, examples_used=16, pool=4)",
    "regression": "target_drift(offset=3, steps=15, num_tasks=2, batch_size=8, examples_used=16, pool=4)",
}


@lru_cache
def chunk_program(kind):
    task = build_one(STREAMS[kind], tasks)
    ((span, chunk),) = chunks(task.steps, OFF, 100)

    def advance(method, state, index):
        return run_chunk(task, method, OFF, span, jnp.int32(0), state, index, chunk, DATA)

    return task, jax.jit(advance)


@lru_cache
def over_a_switch(method, kind):
    """Variables and the tasks' metrics after 30 updates of a stream with a switch in the middle."""
    task, advance = chunk_program(kind)
    state, finals = start(task, method, jnp.int32(0), DATA), []
    for index in range(2):
        state, record = advance(method, state, jnp.int32(index))
        finals.append(record.final)
    return state.learner.variables, finals


@pytest.mark.parametrize("name", STRENGTHS)
def test_zero_strength_equals_absence(name):
    """To float tolerance: members that reset units have counts by entry in Adam, which round otherwise."""
    neutral = quick(mitigations.get(name)().neutral())
    if "following" in neutral.needs:
        pytest.skip("for agents only")
    # Streams in turn: each costs a program.
    kinds = kinds_of(neutral)
    kind = kinds[STRENGTHS.index(name) % len(kinds)]
    (found, finals), (expected, wanted) = over_a_switch(method([neutral]), kind), over_a_switch(method(), kind)
    # A member may bring parameters and a memory of its own.
    close((shared(found, expected), finals), (expected, wanted), rtol=1e-3, atol=1e-4)


def shared(tree, other):
    """Of nested dicts what the other has too."""
    return {key: shared(tree[key], other[key]) for key in other} if isinstance(other, dict) else tree


@every_member
def test_neutral_members_are_the_member_with_other_strengths(name):
    neutral = member(name).neutral()
    if neutral is not None:
        assert type(neutral) is mitigations.get(name)
        assert quick(neutral).neutral() in (quick(neutral), neutral)


@every_member
def test_the_state_survives_being_saved(name, tmp_path):
    checkpoint = pytest.importorskip("plasticity.checkpoint")
    learner, _ = trained(method([member(name)]))
    checkpoint.save(tmp_path, 1, learner, {"at": 5})
    again, host = checkpoint.load(checkpoint.latest(tmp_path), learner)
    close(again, learner, rtol=0, atol=0)
    assert host == {"at": 5}


def test_two_hot_needs_a_regression():
    with pytest.raises(UserError, match="two_hot needs a regression task"):
        compose.architecture([mitigations.get("two_hot")()], Architecture(HEADS["classification"]))


def test_a_member_is_given_once():
    with pytest.raises(UserError, match="mitigation 'l2' is given 2 times; give it once"):
        compose.canonical([mitigations.get("l2")(1.0), mitigations.get("l2")(2.0)])


@every_member
def test_members_say_where_they_stand(name):
    cls = mitigations.get(name)
    assert cls.stage in compose.STAGES
    assert all(f.metadata["help"] for f in dataclasses.fields(cls))


def test_keys_of_members_do_not_shift_each_other():
    """redo draws the same fresh weights whatever else is composed with it."""
    alone, _ = trained(method([member("redo")]))
    with_others, _ = trained(method([member("redo"), mitigations.get("shrink_perturb")().neutral()]))
    close(alone.variables, with_others.variables)
