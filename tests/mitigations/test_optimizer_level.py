"""Members around the optimiser: UPGD, noise, decay, clipping of gradients, hyperparameters of Adam."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from plain_loop import GRADS, LR, PARAMS, SGD, SHAPES, STILL, around, close, initializer, one, run, same, setting
from scipy import special

from plasticity.errors import UserError
from plasticity.mitigations import compose, mitigations
from plasticity.mitigations.gradient_clipping import GradientClipping
from plasticity.mitigations.noisy_decay import NoisyDecay
from plasticity.mitigations.noisy_sgd import NoisySGD
from plasticity.mitigations.recycling import reset_state
from plasticity.mitigations.soft_shrink_perturb import SoftShrinkPerturb
from plasticity.mitigations.tuned_adam import EqualBetas, TunedAdam
from plasticity.mitigations.upgd import UPGD, Utility
from plasticity.optimizers import optimizers
from plasticity.spec import build

WIDE = PARAMS | {"h": {"kernel": jnp.ones((300, 300)), "bias": jnp.ones(2)}}

# UPGD -------------------------------------------------------------------------------------------------------


def gates_of(values, maximum="corrected", beta=0.999):
    """Gates at t = 1, where the average is (1 - beta) times what comes in and its mass 1 - beta."""
    u = {"w": jnp.asarray(values, jnp.float32)}
    return np.asarray(
        UPGD(maximum=maximum).gates(Utility({"w": (1 - beta) * u["w"]}, {"w": jnp.full(len(values), 1 - beta)}))["w"]
    )


def test_gates_by_hand():
    """Catalogue, oracle O8: equal utilities: 1 - sigmoid(1) = .268941; published: 1 - sigmoid(1000)."""
    np.testing.assert_allclose(gates_of([1.0, 1.0]), 0.268941, rtol=1e-5)
    np.testing.assert_array_equal(gates_of([1.0, 1.0], "published"), 0)
    np.testing.assert_allclose(gates_of([2.0, 1.0, 0.0, -2.0]), 1 - special.expit([1, 0.5, 0, -1]), rtol=1e-5)


def test_where_no_weight_is_useful_the_least_useful_one_is_least_protected():
    """u = -1, -2: the ratios to |m| are -1, -2. The published ones, to m, are 1, 2: the other way around."""
    np.testing.assert_allclose(gates_of([-1.0, -2.0]), 1 - special.expit([-1, -2]), rtol=1e-5)
    published = gates_of([-1.0, -2.0], "published", beta=0.0)
    np.testing.assert_allclose(published, 1 - special.expit([1, 2]), rtol=1e-5)
    for maximum in ("corrected", "published"):
        np.testing.assert_array_equal(gates_of([0.0, 0.0], maximum), 0.5)  # not NaN
        np.testing.assert_array_equal(gates_of([0.0, -1.0], maximum), 0.5)


@pytest.mark.parametrize("maximum", ["corrected", "published"])
@pytest.mark.parametrize("base", ["sgd", "adam"])
def test_upgd_against_a_float64_rewrite(base, maximum):
    """Without noise: theta <- theta - lr d (1 - s), d the gradient or Adam's direction."""
    beta = 0.9
    tx = SGD if base == "sgd" else optimizers.get("adam")(lr=LR).build(per_entry=True)
    found, _ = run(around(UPGD(sigma=0.0, beta=beta, maximum=maximum), tx))
    names = [(a, b) for a in SHAPES for b in SHAPES[a]]
    p = {n: np.asarray(PARAMS[n[0]][n[1]], np.float64) for n in names}
    u, m, v = ({n: np.zeros_like(p[n]) for n in names} for _ in range(3))
    for t, grads in enumerate(GRADS, 1):
        g = {n: np.asarray(grads[n[0]][n[1]], np.float64) for n in names}
        u = {n: beta * u[n] - (1 - beta) * g[n] * p[n] for n in names}
        hat = {n: u[n] / (1 - beta**t) for n in names}
        m = {n: 0.9 * m[n] + 0.1 * g[n] for n in names}
        v = {n: 0.999 * v[n] + 0.001 * g[n] ** 2 for n in names}
        adam = {n: (m[n] / (1 - 0.9**t)) / (np.sqrt(v[n] / (1 - 0.999**t)) + 1e-8) for n in names}
        top = max(x.max() for x in (hat if maximum == "corrected" else u).values())
        assert top > 0
        p = {n: p[n] - LR * (g if base == "sgd" else adam)[n] * (1 - special.expit(hat[n] / top)) for n in names}
        for n in names:
            np.testing.assert_allclose(found[t - 1][n[0]][n[1]], p[n], rtol=1e-4, atol=1e-5)


def test_upgd_gates_the_step_and_its_noise_but_not_the_decay():
    params = jax.tree.map(lambda p: jnp.zeros(p.shape), PARAMS) | {
        "h": {"kernel": jnp.zeros((300, 300)), "bias": jnp.zeros(2)}
    }
    still = jax.tree.map(jnp.zeros_like, params)
    noise = one(around(UPGD(sigma=2.0), STILL), params, still)["h"]["kernel"]
    np.testing.assert_allclose([jnp.mean(noise), jnp.std(noise)], [0, LR * 2.0 / 2], atol=2e-3)  # a gate of one half
    members = compose.canonical(build("upgd(0)+weight_decay(1)", mitigations))
    tx = compose.optimizer(members, optimizers.get("sgd")(lr=LR), setting()).tx
    alone = one(around(UPGD(sigma=0.0)))
    close(jax.tree.map(jnp.subtract, one(tx), alone)["h"], jax.tree.map(lambda p: -LR * p, PARAMS["h"]))


def test_a_reset_weight_has_the_utility_of_a_first_update():
    tx = around(UPGD(sigma=0.0))
    _, state = run(tx)
    touched = jax.tree.map(lambda p: jnp.ones(p.shape, bool), PARAMS)
    same(reset_state(tx, state, touched, PARAMS).own, tx.init(PARAMS).own)


# Noise and decay ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("member", [NoisyDecay(0.0, 0.5), NoisySGD(0.1), UPGD(0.1), SoftShrinkPerturb(0.5, 0.5)])
def test_noise_is_new_in_each_update_and_each_run_and_the_same_again(member):
    tx = around(member)
    update = jax.jit(lambda state, step: tx.update(GRADS[0], state, PARAMS, step=step)[0]["h"]["kernel"])
    draws = [update(tx.init(PARAMS), step) for step in (0, 1)]
    other = member.optimizer(SGD, setting(key=8))
    draws.append(other.update(GRADS[0], other.init(PARAMS), PARAMS, step=0)[0]["h"]["kernel"])
    assert all(np.all(a != b) for i, a in enumerate(draws) for b in draws[:i])
    np.testing.assert_array_equal(draws[0], update(tx.init(PARAMS), 0))
    # Without the run's step the state counts: the first update there is number 1 too.
    np.testing.assert_allclose(draws[0], one(tx)["h"]["kernel"], rtol=1e-5)


def test_noisy_decay_by_hand_and_by_its_moments():
    """From 1 with lr .1 and decay .5: -.05 on average; norm parameters are left to the optimiser."""
    still = jax.tree.map(jnp.zeros_like, WIDE)
    moved = one(around(NoisyDecay(decay=0.5, sigma=0.2)), WIDE, still)
    kernel = moved["h"]["kernel"]
    np.testing.assert_allclose([jnp.mean(kernel), jnp.std(kernel)], [-LR * 0.5, 0.2], atol=3e-3)
    same(moved["n"], still["n"])
    exact = one(around(NoisyDecay(decay=0.5, sigma=0.0)))
    expected = jax.tree.map(lambda g, p: -LR * g - LR * 0.5 * p, GRADS[0], PARAMS)
    close((exact["h"], exact["o"]), (expected["h"], expected["o"]))


def test_soft_shrink_and_perturb_by_hand():
    """.75 (theta + step) + .5 fresh, norm parameters too, in every second update only."""
    tx = around(SoftShrinkPerturb(decay=0.25, perturb=0.5, every=2))
    same(one(tx, step=0), one(SGD))
    fresh = initializer(jax.random.fold_in(setting().key, 2))["params"]
    expected = jax.tree.map(lambda p, g, f: 0.75 * (p - LR * g) + 0.5 * f, PARAMS, GRADS[0], fresh)
    close(optax.apply_updates(PARAMS, one(tx, step=1)), expected)
    mapped = jax.vmap(lambda p, step: tx.update(p, tx.init(p), p, step=step)[0], in_axes=(0, None))
    assert "cond[" in str(jax.make_jaxpr(mapped)(jax.tree.map(lambda p: jnp.stack([p, p]), PARAMS), 0))


def test_gradient_noise_is_as_long_as_stated_and_absent_without_a_gradient():
    """The norm of ones [300, 300] is 300: with scale .01 each entry has a deviation of 3."""
    ones = jax.tree.map(jnp.ones_like, WIDE) | {"o": jax.tree.map(jnp.zeros_like, WIDE["o"])}
    noisy = one(around(NoisySGD(0.01)), WIDE, ones)
    kernel = -noisy["h"]["kernel"] / LR
    np.testing.assert_allclose([jnp.mean(kernel), jnp.std(kernel)], [1, 3], atol=0.05)
    assert not any(map(np.any, jax.tree.leaves(noisy["o"])))


@pytest.mark.parametrize(
    "name", ["noisy_decay", "noisy_sgd", "soft_shrink_perturb", "gradient_clipping", "hare_tortoise"]
)
def test_zero_strength_is_absence_to_the_bit(name):
    neutral = mitigations.get(name)().neutral()
    same(run(around(neutral))[0], run(SGD)[0])


# Gradients ----------------------------------------------------------------------------------------------------


def test_adaptive_clipping_by_hand():
    """A column (3, 4) of norm 5 and a gradient (0, 2): at clipping .1 the gradient may have norm .5."""
    params = {
        "h": {"kernel": jnp.array([[3.0, 3.0], [4.0, 4.0]]), "bias": jnp.zeros(2)},
        "o": {"kernel": jnp.ones((2, 1))},
    }
    grads = {
        "h": {"kernel": jnp.array([[0.0, 0.0], [2.0, 0.4]]), "bias": jnp.array([0.6, 0.8])},
        "o": {"kernel": 9 * jnp.ones((2, 1))},
    }
    moved = one(around(GradientClipping(0.1)), params, grads)
    np.testing.assert_allclose(moved["h"]["kernel"], -LR * np.array([[0, 0], [0.5, 0.4]]), rtol=1e-6)
    np.testing.assert_allclose(moved["h"]["bias"], -LR * 1e-4 * np.array([0.6, 0.8]), rtol=1e-5)  # .1 times eps
    np.testing.assert_allclose(moved["o"]["kernel"], -LR * 9, rtol=1e-6)  # the output is left alone


def test_adaptive_clipping_is_that_of_optax_and_its_strength_may_be_traced():
    theirs = optax.chain(optax.adaptive_grad_clip(0.05), optax.sgd(LR))
    close(run(around(GradientClipping(0.05, output=True)))[0], run(optax.with_extra_args_support(theirs))[0])
    strengths = jnp.array([0.05, 1e30])
    mapped = jax.jit(jax.vmap(lambda c: one(around(GradientClipping(c, output=True)))))(strengths)
    close(jax.tree.map(lambda x: x[0], mapped), one(optax.with_extra_args_support(theirs)))
    close(jax.tree.map(lambda x: x[1], mapped), one(SGD))


# Adam's hyperparameters ---------------------------------------------------------------------------------------


def test_tuned_adam_is_optax_adam_with_these_numbers():
    config = TunedAdam().base(optimizers.get("adam")(lr=LR, b1=0.8))
    close(run(config.build())[0], run(optax.with_extra_args_support(optax.adam(LR, 0.8, 0.9, 1e-9, 1e-3)))[0])


def test_with_equal_betas_no_step_exceeds_the_learning_rate_however_gradients_grow():
    """300 gradients of 1e-3, then of 1: with b2 = .999 the second moment is too small for the next dozen updates."""

    def largest(config):
        tx, w = config.build(), jnp.zeros(())
        gradients = jnp.where(jnp.arange(400) < 300, 1e-3, 1.0)
        _, steps = jax.lax.scan(lambda state, g: tx.update(g, state, w)[::-1], tx.init(w), gradients)
        return float(jnp.max(jnp.abs(steps))) / LR

    adam = optimizers.get("adam")(lr=LR)
    assert largest(EqualBetas().base(adam)) <= 1 + 1e-4
    assert largest(adam) > 2.5


def test_members_for_adam_refuse_another_optimiser():
    for name in ("tuned_adam", "equal_betas"):
        with pytest.raises(UserError, match=f"{name} changes hyperparameters of adam, and the optimiser is sgd"):
            compose.optimizer(build(name, mitigations), optimizers.get("sgd")(), setting())


def test_muon_takes_the_place_of_the_optimiser_with_its_learning_rate():
    parts = compose.optimizer(build("muon(4)", mitigations), optimizers.get("adam")(lr=0.01), setting())
    assert parts.learning_rate == pytest.approx(0.04)
    moved, alone = one(parts.tx), one(optax.with_extra_args_support(optax.adam(0.01)))
    close(moved["h"]["bias"], alone["h"]["bias"])
    singular = np.linalg.svd(moved["h"]["kernel"], compute_uv=False)
    assert np.all((singular > 0.04 * 0.6) & (singular < 0.04 * 1.3))


# Together -------------------------------------------------------------------------------------------------------


def test_mapped_over_strengths_equals_one_by_one_in_a_plain_loop():
    def last(strength):
        members = compose.canonical([NoisySGD(strength), UPGD(strength), NoisyDecay(strength, strength)])
        tx = compose.optimizer(members, optimizers.get("adam")(lr=LR), setting()).tx
        stacked = jax.tree.map(lambda *g: jnp.stack(g), *GRADS)

        def step(carry, grads):
            updates, state = tx.update(grads, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(step, (PARAMS, tx.init(PARAMS)), stacked)[0][0]

    strengths = jnp.array([0.01, 0.1])
    together = jax.jit(jax.vmap(last))(strengths)
    alone = jax.jit(last)
    for i, strength in enumerate(strengths):
        close(jax.tree.map(lambda x, i=i: x[i], together), alone(strength), rtol=1e-4, atol=1e-5)


def test_an_optimiser_around_needs_the_parameters():
    tx = around(NoisySGD())
    with pytest.raises(UserError, match="needs the parameters"):
        tx.update(PARAMS, tx.init(PARAMS))


@pytest.mark.parametrize("wrap", [lambda tx: tx, partial(optax.chain, optax.clip(1.0))])
def test_members_stand_in_a_plain_optax_chain(wrap):
    tx = wrap(UPGD(sigma=0.0).optimizer(SGD, setting()))
    updates, _ = tx.update(GRADS[0], tx.init(PARAMS), PARAMS)
    assert jax.tree.structure(updates) == jax.tree.structure(PARAMS)
