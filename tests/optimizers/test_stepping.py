"""From parameters to parameters: what a loop takes is what `update` and `apply_updates` give."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity.heads import Regression
from plasticity.mitigations import Setting, compose, mitigations
from plasticity.networks import Architecture, networks
from plasticity.optimizers import optimizers
from plasticity.optimizers.stepping import SteppingTransformation, step
from plasticity.spec import build, build_one

X = jax.random.normal(jax.random.key(2), (16, 6))
Y = jnp.sin(3 * X[:, 0])
NETWORK = build_one("mlp(8, 2)", networks).build(Architecture(Regression(-1.0, 1.0)))

# All of them act several times in thirty updates. Two resets: the outer one wraps the inner one's step.
RESETS = [
    "redo(tau=0.5, every=7)",
    "regrama(tau=0.5, every=7)",
    "self_normalised_resets(longest=2)",
    "continual_backprop(rate=0.1, maturity=3, pool_every=2)",
    "selective_weight_reinit(0.3, every=5)",
    "cpr(0.5, every=5)",
    "redo(tau=0.5, every=7)+continual_backprop(rate=0.1, maturity=3, pool_every=2)+weight_decay(0.1)",
]


def trained(members, way, optimizer="adam(0.01)"):
    """`[30 + 1]` parameters on the way of thirty updates."""
    config = build_one(optimizer, optimizers)
    setting = Setting(NETWORK, lambda key: NETWORK.init(key, X), config.lr, jax.random.key(1))
    tx = compose.optimizer(compose.canonical(build(members, mitigations)), config, setting).tx
    params = NETWORK.init(jax.random.key(0), X)["params"]

    def loss(params):
        outputs, activations, _ = NETWORK.apply({"params": params}, X)
        return jnp.mean(jnp.square(outputs[:, 0] - Y)), activations

    def one(carry, number):
        params, state = carry
        gradient, activations = jax.grad(loss, has_aux=True)(params)
        params, state = way(tx, gradient, state, params, activations=activations, step=number)
        return (params, state), params

    _, path = jax.jit(partial(jax.lax.scan, one))((params, tx.init(params)), jnp.arange(30))
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), params, path)


def updated(tx, gradient, state, params, **extra):
    updates, state = tx.update(gradient, state, params, **extra)
    return optax.apply_updates(params, updates), state


@pytest.mark.parametrize("members", ["none", *RESETS])
def test_a_step_is_an_update_that_is_applied(members):
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-5), trained(members, step), trained(members, updated)
    )


@pytest.mark.parametrize("members", RESETS)
def test_these_resets_have_acted(members):
    plain, found = trained("none", step), trained(members, step)
    assert any(not np.allclose(a, b, atol=1e-3) for a, b in zip(*map(jax.tree.leaves, (plain, found)), strict=True))


def test_any_optax_transformation_can_be_stepped_and_gets_what_is_given():
    params, gradient = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([1.0, -4.0])}
    found, _ = step(optax.sgd(0.5), gradient, optax.sgd(0.5).init(params), params, activations=None)
    np.testing.assert_array_equal(found["w"], [0.5, 4.0])

    asked = {}
    own = SteppingTransformation(lambda p: (), lambda *a, **k: pytest.fail("update"), lambda *a, **k: asked.update(k))
    step(own, gradient, (), params, step=3)
    assert asked == {"step": 3}
    assert optax.with_extra_args_support(own) is own


def test_without_momentum_there_is_no_velocity():
    params = {"w": jnp.ones(3)}
    assert not jax.tree.leaves(build_one("sgd(0.1)", optimizers).build().init(params))
    assert len(jax.tree.leaves(build_one("sgd(0.1, momentum=0.5)", optimizers).build().init(params))) == 1


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_sgd_by_hand_whether_momentum_is_a_number_or_an_array(momentum):
    """Two steps along gradient 1 from 0 at lr .1: -.1, then -.1 (1 + 1 + momentum)."""

    def two(momentum):
        tx = optimizers.get("sgd")(0.1, momentum).build()
        params = {"w": jnp.zeros(())}
        state = tx.init(params)
        for _ in range(2):
            params, state = step(tx, {"w": jnp.ones(())}, state, params)
        return params["w"]

    np.testing.assert_allclose(two(momentum), -0.1 * (2 + momentum), rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(two)(jnp.array([momentum, 0.9])), [-0.1 * (2 + momentum), -0.29], rtol=1e-6)
