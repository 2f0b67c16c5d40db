"""Updates of agents whose networks keep something beside parameters, or draw in training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled_agents import AGENTS, SEED, filled, some_batch, updated

from rl import learner


@pytest.mark.parametrize(
    ("agent", "mitigations", "collections"),
    [
        ("double", "batch_norm", {"batch_stats"}),
        ("rainbow", "hybrid_norm+spectral_norm+aid", {"batch_stats", "spectral_stats"}),
    ],
)
def test_updates_change_what_the_online_network_keeps_and_the_target_follows_when_it_is_copied(
    agent, mitigations, collections
):
    plan, method, state = filled(AGENTS[agent], mitigations)
    after = updated(plan, method, state)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(after.learner.variables))
    for name in collections:
        before, now = (jax.tree.leaves(s.learner.variables[name]) for s in (state, after))
        assert all(np.any(a != b) for a, b in zip(before, now, strict=True))
    jax.tree.map(np.testing.assert_array_equal, after.target, state.target)
    copied = updated(plan, method, state, number=plan.agent.target_updates - 1)
    jax.tree.map(np.testing.assert_array_equal, copied.target, copied.learner.variables)


def test_a_random_nonlinearity_draws_by_the_key_of_the_update_and_acting_has_its_mean():
    plan, method, state = filled(AGENTS["dqn"], "aid(0.3)")
    made, seen = learner.parts(plan, method, SEED), some_batch(plan, state)

    @jax.jit
    def gradient(key):
        return learner.gradient(plan, made, state.learner.variables, state.target, seen, state.reference, key).grads

    first, again, later = (gradient(jax.random.key(k)) for k in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(later), strict=True))
    obs = jnp.asarray(np.random.default_rng(0).normal(size=(5, *plan.observation)), jnp.float32)
    a, b = (learner.outputs(plan, made, state.target, obs, jax.random.key(k))[0] for k in (0, 1))
    np.testing.assert_array_equal(a, b)
