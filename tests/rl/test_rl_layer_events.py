"""Events of an agent that renew layers or whole networks: two streams, noise, target network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled_agents import SEED, SMALL, filled, made_of, some_batch, updated

from plasticity.errors import UserError
from rl import learner

AGENT = f"dqn({SMALL}, dueling=true, noise=0.5)"
STREAMS = ("value", "advantage")


def after_event(mitigations, agent=AGENT):
    plan, method, state = filled(agent, mitigations, "adam(0.01)")
    variables = state.learner.variables
    if "frozen" in variables:  # moved away from the start like everything else; not yet injected
        variables = {**variables, "frozen": {**variables["frozen"], "active": jnp.float32(0)}}
        state = state._replace(learner=state.learner._replace(variables=variables))
    event = jax.jit(lambda state, batch: learner.event(plan, method, SEED, state, batch, jnp.int32(1)))
    return plan, method, state, event(state, some_batch(plan, state))


def changed(before, after):
    """The modules whose kernels differ."""
    before, after = before.learner.variables["params"], after.learner.variables["params"]
    return {name for name in before if np.any(before[name]["kernel"] != after[name]["kernel"])}


@pytest.mark.parametrize(
    ("mitigations", "expected"),
    [
        ("head_reset", {f"{s}_output" for s in STREAMS}),
        ("layer_reset", {f"{s}_{place}" for s in STREAMS for place in ("hidden", "output")}),
        ("optimizer_reset", set()),
    ],
)
def test_both_streams_are_renewed(mitigations, expected):
    _, _, before, after = after_event(mitigations)
    assert changed(before, after) == expected
    jax.tree.map(np.testing.assert_array_equal, after.target, after.learner.variables)


def test_an_injected_agent_values_actions_as_before_and_learns_on():
    plan, method, before, after = after_event("plasticity_injection")
    made = learner.parts(plan, method, SEED)
    batch = some_batch(plan, before)
    apply = jax.jit(lambda variables, noise: learner.outputs(plan, made, variables, batch.obs, noise)[0])
    for noise in (None, jax.random.key(0)):
        was, now = (apply(s.learner.variables, noise) for s in (before, after))
        np.testing.assert_array_equal(now, was)
    jax.tree.map(np.testing.assert_array_equal, after.target, after.learner.variables)
    later = updated(plan, method, after)
    frozen = (s.learner.variables["frozen"] for s in (after, later))
    jax.tree.map(np.testing.assert_array_equal, *frozen)
    assert {"value_hidden", "value_output", "advantage_hidden", "advantage_output"} <= changed(after, later)
    assert np.any(apply(later.learner.variables, None) != apply(after.learner.variables, None))


def test_a_distilled_agent_values_actions_much_as_before():
    plan, method, before, after = after_event("distillation", f"dqn({SMALL}, dueling=true)")
    made = learner.parts(plan, method, SEED)
    obs = some_batch(plan, before).obs
    was, now = (learner.outputs(plan, made, s.learner.variables, obs)[0] for s in (before, after))
    fresh = learner.outputs(plan, made, made.initial, obs)[0]
    assert np.mean((now - was) ** 2) < 0.1 * np.mean((fresh - was) ** 2)


def test_blocks_in_an_agent():
    """Traced only: the numbers are those of the network's own tests."""
    for mitigations in ("simba", "hyperspherical"):
        plan, method = made_of(f"dqn({SMALL}, dueling=true)", mitigations)
        state = jax.eval_shape(lambda plan=plan, method=method: learner.start(plan, method, SEED))
        assert {"value_output", "advantage_output", "block_0"} <= set(state.learner.variables["params"])
        after = jax.eval_shape(lambda s, plan=plan, method=method: updated(plan, method, s), state)
        assert jax.tree.structure(after) == jax.tree.structure(state)
    with pytest.raises(UserError, match=r"hyperspherical layers have no noise: noise must be 0, got 0.5"):
        learner.parts(*made_of(AGENT, "hyperspherical"), SEED)
