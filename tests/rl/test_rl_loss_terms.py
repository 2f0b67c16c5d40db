"""Loss terms in an agent: features of two streams, the next observations, memories through an update."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled_agents import AGENTS, SEED, close, filled, made_of, some_batch, updated

from plasticity.errors import UserError
from rl import learner


@pytest.mark.parametrize("agent", ["dqn", "dueling"])
def test_dr3_aligns_features_of_consecutive_observations(agent):
    """Its gradient, as the difference of the gradients with it and without, against that of the formula."""
    plan, method, state = filled(AGENTS[agent], "dr3(0.5)")
    made, seen, variables = learner.parts(plan, method, SEED), some_batch(plan, state), state.learner.variables

    def gradient(penalised):
        args = (plan, made, variables, state.target, seen, state.reference, jax.random.key(0))
        return learner.gradient(*args, penalised=penalised).grads

    def alignment(params):
        def phi(obs):
            _, activations, _ = learner.outputs(plan, made, {**variables, "params": params}, obs)
            names = ("value_hidden", "advantage_hidden") if agent == "dueling" else ("hidden_1",)
            return jnp.concatenate([activations[name].post for name in names], axis=1)

        return 0.5 * jnp.mean(jnp.sum(phi(seen.obs) * phi(seen.next_obs), axis=1))

    found = jax.tree.map(jnp.subtract, *(jax.jit(gradient, static_argnums=0)(on) for on in (True, False)))
    expected = jax.jit(jax.grad(alignment))(variables["params"])
    assert any(np.any(np.abs(g) > 1e-3) for g in jax.tree.leaves(expected))
    close(found, expected, rtol=1e-3, atol=1e-5)


def test_an_agent_with_all_terms_updates_and_remembers():
    terms = "c_chain(warmup=0, window=2)+dr3+effective_rank+feature_norm+gradient_norm+infer+parseval+sam+spectral_reg"
    _, _, other = filled(AGENTS["dueling"])
    plan, method = made_of(AGENTS["dueling"], f"{terms}+wasserstein_init")
    state = jax.jit(lambda: learner.start(plan, method, SEED))()._replace(ring=other.ring)
    before = jax.tree.map(np.asarray, state.learner.variables)
    after = updated(plan, method, state, updates=3).learner.variables
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(after))
    memory = after["memory"]
    assert int(memory["c_chain"].count) == 3
    assert float(memory["c_chain"].churn) > 0
    # One update ago: neither the first parameters nor the last.
    (lagged,) = memory["c_chain"].lagged
    for others in (before["params"], after["params"]):
        assert np.any(lagged["value_output"]["kernel"] != others["value_output"]["kernel"])
    assert set(memory["spectral_reg"]) >= {"value_output/kernel", "advantage_auxiliary/kernel"}
    moved = after["params"]["value_auxiliary"]["kernel"] != before["params"]["value_auxiliary"]["kernel"]
    assert np.any(moved)


def test_popart_needs_targets_that_an_agent_does_not_pass():
    plan, method = made_of(AGENTS["dqn"], "popart")
    with pytest.raises(UserError, match="popart cannot be used in an agent: it needs the targets of the batch"):
        learner.parts(plan, method, SEED)
