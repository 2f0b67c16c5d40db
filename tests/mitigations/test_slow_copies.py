"""Hare and Tortoise, and TRAC: what is tied to a copy or to the start, and what a reset does to it."""

import jax
import jax.numpy as jnp
import numpy as np
from plain_loop import GRADS, LR, PARAMS, around, close, doubles, run, same
from scipy import special

from plasticity.mitigations.hare_tortoise import HareTortoise
from plasticity.mitigations.recycling import reset_state
from plasticity.mitigations.trac import DISCOUNTS, TRAC, erfi

# Hare and Tortoise --------------------------------------------------------------------------------------------


def test_hare_and_tortoise_against_a_rewrite():
    found, state = run(around(HareTortoise(average=0.75, every=3)))
    fast, slow = doubles(PARAMS), doubles(PARAMS)
    for t, grads in enumerate(GRADS, 1):
        fast = jax.tree.map(lambda p, g: p - LR * g, fast, doubles(grads))
        slow = jax.tree.map(lambda s, f: 0.75 * s + 0.25 * f, slow, fast)
        fast = slow if t % 3 == 0 else fast
        close(found[t - 1], fast)
    close(state.own, slow)


def test_a_reset_reaches_the_slow_copy_and_it_has_buffers_of_its_own():
    tx = around(HareTortoise(average=0.9, every=4))
    found, state = run(tx, grads=GRADS[:3])
    touched = jax.tree.map(lambda p: jnp.arange(p.size).reshape(p.shape) == 0, PARAMS)
    new = jax.tree.map(lambda p, m: jnp.where(m, 42.0, p), found[-1], touched)
    after = reset_state(tx, state, touched, new)
    same(after.own, jax.tree.map(lambda s, m: jnp.where(m, 42.0, s), state.own, touched))
    still = jax.tree.map(jnp.zeros_like, PARAMS)
    (returned,), _ = run(tx, new, [still], after)
    for leaf in jax.tree.leaves(returned):
        np.testing.assert_allclose(leaf.ravel()[0], 42.0, rtol=1e-6)
    step = jax.jit(lambda params, state: tx.update(params, state, params), donate_argnums=(0, 1))
    params = jax.tree.map(jnp.array, PARAMS)
    jax.block_until_ready(step(params, tx.init(params)))


# TRAC ---------------------------------------------------------------------------------------------------------


def test_the_imaginary_error_function():
    x = np.concatenate([-np.logspace(-6, 0.95, 40), [0.0], np.logspace(-6, 0.95, 40)])
    np.testing.assert_allclose(
        jax.jit(erfi)(jnp.asarray(x, jnp.float32)), special.erfi(np.float32(x).astype(float)), rtol=3e-5
    )
    assert np.isfinite(erfi(jnp.float32(9.0)))


def published_trac(s_prev, eps, steps):
    """The published recursion in float64, where recomputing the path from theta loses little."""
    flat = lambda tree: np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)])  # noqa: E731
    beta, start = np.array(DISCOUNTS), flat(PARAMS)
    theta, s, variance, sigma, found = start.copy(), np.zeros(6), np.zeros(6), np.full(6, 1e-8), []
    for grads in steps:
        g = flat(grads)
        path = (theta - start) / (s.sum() + eps)
        h = path @ g
        variance = beta**2 * variance + h**2
        sigma = beta * sigma - h
        s = s_prev * special.erfi(sigma / (np.sqrt(2 * variance) + eps)) / special.erfi(np.sqrt(0.5))
        theta = start + max(s.sum(), 0) * (path - LR * g)
        found.append(theta)
    return found, flat


def test_trac_against_the_published_recursion():
    """Gradients that agree, so that the scale grows and never falls to 0, where the published path is lost."""
    grads = [jax.tree.map(lambda a, b: a + 0.1 * b, GRADS[0], g) for g in GRADS]
    found, state = run(around(TRAC(s_prev=0.1)), grads=grads)
    expected, flat = published_trac(0.1, 1e-8, grads)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(flat(mine), theirs, rtol=1e-3, atol=1e-4)
    assert float(state.own.scale) > 1.0


def test_trac_returns_to_the_start_when_the_path_was_wrong_and_keeps_the_path():
    flipped = [GRADS[0]] * 3 + [jax.tree.map(lambda g: -5 * g, GRADS[0])] * 2
    found, state = run(around(TRAC(s_prev=0.1)), grads=flipped)
    assert float(state.own.scale) == 0
    close(found[-1], PARAMS, atol=1e-5)
    assert np.all(state.own.path["h"]["kernel"] != 0)


def test_what_others_change_moves_tracs_anchor_and_a_reset_entry_starts_a_new_path():
    tx = around(TRAC(s_prev=0.1))
    found, state = run(tx, grads=GRADS[:1] * 3)
    touched = jax.tree.map(lambda p: jnp.arange(p.size).reshape(p.shape) == 0, PARAMS)
    new = jax.tree.map(lambda p, m: jnp.where(m, 5.0, p), found[-1], touched)
    after = reset_state(tx, state, touched, new)
    (moved,), later = run(tx, new, GRADS[:1], after)
    # From the fresh value by one step of the new scale; without the reset by all of the path's rescaling.
    jax.tree.map(
        lambda a, g: np.testing.assert_allclose(
            a.ravel()[0], 5 - float(later.own.scale) * LR * g.ravel()[0], rtol=1e-4
        ),
        moved,
        GRADS[0],
    )
    assert float(later.own.scale) > float(state.own.scale)
    shifted = jax.tree.map(lambda p: p + 1, found[-1])
    (a,), (b,) = (run(tx, params, GRADS[:1], state)[0] for params in (found[-1], shifted))
    close(jax.tree.map(lambda p: p + 1, a), b)
