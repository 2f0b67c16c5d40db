"""Muon: orthogonal steps of matrices and filters, Adam for the rest, and what a reset does to it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity.mitigations.recycling import initial_state, reset_state
from plasticity.optimizers import optimizers

RNG = np.random.default_rng(0)
SHAPES = {"filters": (3, 3, 4, 8), "kernel": (12, 6), "bias": (6,)}


def draw():
    return {name: jnp.asarray(RNG.normal(size=shape), jnp.float32) for name, shape in SHAPES.items()}


PARAMS, GRADS = draw(), [draw() for _ in range(4)]


def updates_of(tx, state=None):
    state = tx.init(PARAMS) if state is None else state
    found = []
    for grads in GRADS:
        updates, state = tx.update(grads, state, PARAMS)
        found.append(updates)
    return found, state


@pytest.mark.parametrize("per_entry", [False, True])
def test_matrices_are_those_of_optax_and_the_rest_is_adam(per_entry):
    mine, _ = updates_of(optimizers.get("muon")(lr=0.1, ratio=0.2, beta=0.9).build(per_entry))
    muon, _ = updates_of(optax.contrib.muon(0.1, beta=0.9))
    adam, _ = updates_of(optax.adam(0.02))
    for a, m, b in zip(mine, muon, adam, strict=True):
        np.testing.assert_allclose(a["kernel"], m["kernel"], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(a["bias"], b["bias"], rtol=1e-4, atol=1e-7)


def test_a_step_is_nearly_orthogonal_for_kernels_and_for_filters():
    """Newton-Schulz of five iterations takes singular values to about .7 to 1.2, times sqrt(max(1, out / in))."""
    updates, _ = updates_of(optimizers.get("muon")(lr=1.0).build())
    for step in updates:
        for name in ("filters", "kernel"):
            matrix = np.asarray(step[name]).reshape(-1, SHAPES[name][-1])
            values = np.linalg.svd(matrix, compute_uv=False)
            assert values.min() > 0.6
            assert values.max() < 1.3


def test_momentum_is_by_entry_and_can_be_reset():
    tx = optimizers.get("muon")().build(per_entry=True)
    _, state = updates_of(tx, initial_state(tx, PARAMS))
    touched = {name: jnp.asarray(RNG.random(shape) < 0.5) for name, shape in SHAPES.items()}
    after = jax.tree_util.tree_leaves_with_path(reset_state(tx, state, touched, PARAMS))
    seen = set()
    for (path, new), old in zip(after, jax.tree.leaves(state), strict=True):
        name = getattr(path[-1], "key", None)
        if name in SHAPES:
            seen.add(name)
            np.testing.assert_array_equal(new, np.where(touched[name], 0, old))
            assert np.all(old != 0)
    assert seen == set(SHAPES)
