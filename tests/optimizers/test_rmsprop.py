"""RMSProp against the formula in its docstring, torch and optax; and where a centred one must not fail."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity.optimizers import optimizers

RNG = np.random.default_rng(0)
START = RNG.normal(size=(4, 3)).astype(np.float32)
GRADS = (RNG.normal(0.3, 1, (60, 4, 3)) * 10.0 ** RNG.integers(-3, 2, (4, 3))).astype(np.float32)
GRADS[5, 0] = 0.0
centred_or_not = pytest.mark.parametrize("centered", [False, True])


def run(tx, grads=GRADS, start=START):
    """(parameters at the end, updates)."""
    params = {"w": jnp.asarray(start)}

    def step(carry, g):
        params, state = carry
        updates, state = tx.update({"w": g}, state, params)
        return (optax.apply_updates(params, updates), state), updates["w"]

    (params, _), updates = jax.jit(lambda g: jax.lax.scan(step, (params, tx.init(params)), g))(jnp.asarray(grads))
    return np.asarray(params["w"]), np.asarray(updates)


def member(**fields):
    return optimizers.get("rmsprop")(**fields).build()


@centred_or_not
@pytest.mark.parametrize(("decay", "eps"), [(0.95, 9.765625e-6), (0.9, 1e-2), (0.0, 1e-3)])
def test_against_the_formula_in_float64(centered, decay, eps):
    """theta <- theta - lr g / sqrt(nu [- mean^2] + eps): eps is inside the root."""
    p, nu, mean = START.astype(np.float64), 0.0, 0.0
    for g in GRADS.astype(np.float64):
        nu, mean = decay * nu + (1 - decay) * g**2, decay * mean + (1 - decay) * g
        p = p - 0.01 * g / np.sqrt(nu - (mean**2 if centered else 0) + eps)
    found, _ = run(member(lr=0.01, decay=decay, eps=eps, centered=centered))
    # With decay 0 the centred root is that of eps alone, and steps are large.
    np.testing.assert_allclose(found, p, rtol=2e-3, atol=1e-3 * np.abs(p).max())


@centred_or_not
def test_against_optax(centered):
    theirs = optax.rmsprop(0.01, decay=0.95, eps=1e-4, centered=centered)
    np.testing.assert_allclose(
        run(member(lr=0.01, eps=1e-4, centered=centered))[1], run(theirs)[1], rtol=1e-3, atol=1e-6
    )


@centred_or_not
def test_against_torch_whose_eps_is_outside_the_root(centered):
    """Without an eps on either side they are one; with it they differ, by more than rounding."""
    torch = pytest.importorskip("torch")
    grads = np.where(GRADS == 0, 1e-3, GRADS)

    def torchs(eps):
        w = torch.tensor(START, requires_grad=True)
        peer = torch.optim.RMSprop([w], lr=0.01, alpha=0.95, eps=eps, centered=centered)
        for g in grads:
            w.grad = torch.tensor(g)
            peer.step()
        return w.detach().numpy()

    np.testing.assert_allclose(
        run(member(lr=0.01, eps=0.0, centered=centered), grads)[0], torchs(0.0), rtol=1e-3, atol=1e-4
    )
    assert np.any(np.abs(run(member(lr=0.01, eps=0.1, centered=centered), grads)[0] - torchs(0.1)) > 1e-2)


def test_the_first_update_by_hand():
    """nu = .05 g^2, mean = .05 g: 1 / sqrt(.05) = 4.472 learning rates; centred 1 / sqrt(.0475) = 4.588."""
    for centered, expected in ((False, 4.4721), (True, 4.5883)):
        _, updates = run(member(lr=1.0, eps=0.0, centered=centered), GRADS[:1])
        np.testing.assert_allclose(updates[0], -expected * np.sign(GRADS[0]), rtol=1e-4)


def test_the_defaults_are_those_of_dqn():
    defaults = optimizers.get("rmsprop")()
    assert (defaults.lr, defaults.decay, defaults.centered) == (2.5e-4, 0.95, False)
    assert defaults.eps == 0.01 / 32**2


@pytest.mark.parametrize("size", [1.0, 30.0, 1e3, 1e6])
def test_steady_gradients_do_not_make_a_centred_one_fail(size):
    """The difference nu - mean^2 rounds to below -eps here; kept as a variance it is never negative."""
    grads = size * np.linspace(0.5, 1, 100) * (1 + 1e-6 * RNG.normal(size=(1000, 100)))
    _, updates = run(member(centered=True), grads.astype(np.float32), np.zeros(100, np.float32))
    assert np.all(np.isfinite(updates))
    assert np.all(updates < 0)
    if size <= 30:  # where the deviation is far below the root of eps
        np.testing.assert_allclose(updates[-1], -2.5e-4 * grads[-1] / 9.765625e-6**0.5, rtol=0.05)
