"""Sharpness-aware minimisation by hand and against optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from plasticity.mitigations import compose, mitigations
from plasticity.spec import build

CURVATURE = jnp.array([1.0, 4.0])
SAM = build("sam(0.1)", mitigations)


def loss(params):
    return 0.5 * jnp.sum(CURVATURE * jnp.square(params["w"])) + jnp.sum(jnp.sin(params["b"])), params["w"] + 0


def gradient(members, params):
    return compose.gradient(members, jax.grad(loss, has_aux=True))(params)


def test_the_gradient_at_the_worst_point_by_hand():
    """g = (3, 4), so theta + .1 g / 5 = theta + (.06, .08); what is reported is that of theta."""
    params = {"w": jnp.array([3.0, 1.0]), "b": jnp.full(1, np.pi / 2)}
    found, seen = gradient(SAM, params)
    np.testing.assert_allclose(found["w"], [3.06, 4 * 1.08], rtol=1e-6)
    np.testing.assert_array_equal(seen, params["w"])


def test_a_zero_gradient_stays_and_zero_rho_is_absence():
    still = {"w": jnp.zeros(2), "b": jnp.zeros(0)}
    assert all(np.all(g == 0) for g in jax.tree.leaves(gradient(SAM, still)[0]))
    params = {"w": jnp.array([3.0, 1.0]), "b": jnp.ones(1)}
    plain, without = gradient((), params)[0], gradient(build("sam(0)", mitigations), params)[0]
    jax.tree.map(np.testing.assert_array_equal, plain, without)


@pytest.mark.parametrize("rho", [0.05, 0.5])
def test_steps_are_those_of_optax(rho):
    params = theirs = {"w": jnp.array([3.0, -1.0]), "b": jnp.array([0.3])}
    outer, inner = optax.sgd(0.1), optax.chain(optax.contrib.normalize(), optax.sgd(rho))
    peer = optax.contrib.sam(outer, inner, sync_period=2, opaque_mode=True)
    peer_state, state = peer.init(theirs), outer.init(params)
    for _ in range(5):
        updates, peer_state = peer.update(
            jax.grad(lambda p: loss(p)[0])(theirs),
            peer_state,
            theirs,
            grad_fn=lambda p, _: jax.grad(lambda p: loss(p)[0])(p),
        )
        theirs = optax.apply_updates(theirs, updates)
        updates, state = outer.update(gradient(build(f"sam({rho})", mitigations), params)[0], state, params)
        params = optax.apply_updates(params, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), params, theirs)
