"""The projection of hyperspherical kernels: columns of norm 1 after every update, nothing else touched."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from lab import batch, method, setting

from plasticity.errors import UserError
from plasticity.mitigations import Setting, compose, mitigations
from plasticity.mitigations.hyperspherical import Hyperspherical, with_unit_columns
from plasticity.optimizers import optimizers
from plasticity.spec import build


def kernels(params):
    return {name: layer["kernel"] for name, layer in params.items() if "kernel" in layer}


def test_projection_by_hand():
    """(3, 4) becomes (.6, .8), a column of zeros stays; gains and heads that no output reads do too."""
    net = setting(method("hyperspherical"))[0].network
    params = {
        "a": {"kernel": jnp.array([[3.0, 0.0], [4.0, 0.0]]), "gain": jnp.array([3.0, 4.0])},
        "auxiliary": {"kernel": jnp.array([[3.0], [4.0]])},
    }
    found = with_unit_columns(params, replace(net, auxiliary=(("auxiliary", "kernel"),)))
    np.testing.assert_allclose(found["a"]["kernel"], [[0.6, 0.0], [0.8, 0.0]], rtol=1e-6)
    np.testing.assert_array_equal(found["a"]["gain"], [3.0, 4.0])
    np.testing.assert_array_equal(found["auxiliary"]["kernel"], [[3.0], [4.0]])


@pytest.mark.parametrize("optimizer", ["adam(0.3)", "sgd(1, momentum=0.9)"])
def test_columns_have_norm_1_after_every_update_and_momentum_is_not_projected(optimizer):
    parts, _, variables = setting(method("hyperspherical", optimizer))
    params, x = variables["params"], batch("regression")[0]
    plain = build(optimizer, optimizers)[0].build()
    state, plain_state = parts.tx.init(params), plain.init(params)
    update, plain_update, apply = jax.jit(parts.tx.update), jax.jit(plain.update), jax.jit(parts.network.apply)
    rng = np.random.default_rng(0)
    for number in range(5):
        grads = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)
        updates, state = update(grads, state, params, activations={}, step=number)
        plain_updates, plain_state = plain_update(grads, plain_state, params)
        stepped, params = optax.apply_updates(params, plain_updates), optax.apply_updates(params, updates)
        for name, kernel in kernels(params).items():
            np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1, atol=1e-6, err_msg=name)
            free = np.asarray(kernels(stepped)[name])
            np.testing.assert_allclose(kernel, free / np.linalg.norm(free, axis=0), rtol=1e-4, atol=1e-6)
        for name in ("embedding", "block_0", "block_1_mix", "head"):
            np.testing.assert_allclose(params[name]["gain"], stepped[name]["gain"], rtol=1e-6)
        np.testing.assert_allclose(params["output"]["bias"], stepped["output"]["bias"], rtol=1e-6)
        features = apply({"params": params}, x)[1]["features"].post
        np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.inner, plain_state)


def test_a_reset_of_units_shortens_columns_until_the_next_update():
    """redo with tau 1, at update 2, recycles units below the mean: a fresh column has norm 1, those it feeds less."""
    parts, _, variables = setting(method("hyperspherical+redo(tau=1, every=2)"))
    params, x = variables["params"], batch("regression")[0]
    state = parts.tx.init(params)

    @jax.jit
    def update(params, state, step):
        activations = parts.network.apply({"params": params}, x)[1]
        updates, state = parts.tx.update(params, state, params, activations=activations, step=step)
        return optax.apply_updates(params, updates), state

    for step in range(3):
        params, state = update(params, state, step)
        norms = {name: np.linalg.norm(kernel, axis=0) for name, kernel in kernels(params).items()}
        shortened = norms.pop("block_0_out") < 0.99
        assert np.all(shortened) if step == 1 else not np.any(shortened)
        np.testing.assert_allclose(norms["block_0"], 1, atol=1e-6)


def test_in_a_loop_of_ones_own():
    tx = Hyperspherical().optimizer(
        optax.with_extra_args_support(optax.adam(0.1)),
        Setting(setting(method())[0].network, lambda key: {}, 0.1, jax.random.key(0)),
    )
    params = {"w": 3 * jnp.eye(3), "b": jnp.ones(3)}
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    np.testing.assert_allclose(np.linalg.norm(optax.apply_updates(params, updates)["w"], axis=0), 1, atol=1e-6)


@pytest.mark.parametrize("other", ["weight_norm", "spectral_norm", "sparse_init"])
def test_what_sets_the_kernels_otherwise_cannot_stand_with_it(other):
    members = build(f"{other}+hyperspherical", mitigations)
    with pytest.raises(UserError, match=f"hyperspherical and {other} cannot be combined: the columns"):
        compose.canonical(members)


def test_one_kind_of_blocks():
    with pytest.raises(UserError, match="hyperspherical and simba cannot be combined: each sets the network's blocks"):
        compose.canonical(build("simba+hyperspherical", mitigations))
