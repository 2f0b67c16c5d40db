"""Selective weight reinitialisation: which entries are chosen, by what they are replaced, and their state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from lab import batch, method, setting

from plasticity.mitigations.selective_weight_reinit import SelectiveWeightReinit, below_threshold, lowest_share
from plasticity.optimizers import optimizers

X, _ = batch("regression")
ADAM = optimizers.get("adam")(0.01).build(per_entry=True)


def test_a_share_is_right_on_average_and_takes_the_lowest():
    """Catalogue, oracle O19: a quarter of ten is 2.5."""
    keys = jax.random.split(jax.random.key(0), 1000)
    masks = np.asarray(jax.jit(jax.vmap(lowest_share, (0, None, None)))(keys, jnp.ones(10), 0.25))
    counts = masks.sum(1)
    assert set(counts.tolist()) == {2, 3}
    assert abs(counts.mean() - 2.5) < 0.06  # four standard errors
    # Equal utilities: those that come first.
    assert masks[:, :2].all()
    utility = jnp.array([[5.0, 1.0, 3.0], [2.0, 4.0, 0.5]])
    assert lowest_share(keys[0], utility, 0.5).tolist() == [[False, True, False], [True, False, True]]
    assert [int(lowest_share(keys[0], utility, f).sum()) for f in (-1.0, 0.0, 1.0)] == [0, 0, 6]


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        (0.0, [True, False, False, False]),
        (0.49, [True, False, False, False]),
        (0.5, [True, True, False, False]),
        (2.0, [True, True, True, True]),
        (-1.0, [False, False, False, False]),
    ],
)
def test_a_threshold_is_a_factor_of_the_mean_and_zero_takes_exact_zeros_only(factor, expected):
    assert below_threshold(jnp.array([0.0, 1.0, 3.0, 4.0]), factor).tolist() == expected


def test_a_tensor_without_utility_is_left_alone():
    """A bias at its initial zeros: utilities and their mean are all zero."""
    assert not np.any(below_threshold(jnp.zeros(5), 0.0))
    assert not np.any(below_threshold(jnp.zeros(5), 10.0))


def once(member, optimizer=ADAM, architecture="layer_norm"):
    """(member's updates and state, the inner optimiser's, parameters, gradients) of one update with moments."""
    parts, _, variables = setting(method(architecture))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: p + 0.1 * jnp.asarray(rng.normal(size=p.shape), jnp.float32), variables["params"])
    grads = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)
    _, before = optimizer.update(grads, optimizer.init(params), params)
    tx = member.optimizer(optimizer, parts)
    found = jax.jit(tx.update)(grads, tx.init(params)._replace(inner=before), params)
    return found, jax.jit(optimizer.update)(grads, before, params), params, grads, parts


def leaves(tree, *names):
    return np.concatenate([np.ravel(tree[module][leaf]) for module, leaf in names])


WEIGHTS = [(module, leaf) for module in ("hidden_0", "hidden_1", "output") for leaf in ("kernel", "bias")]
NORMS = [(module, leaf) for module in ("norm_hidden_0", "norm_hidden_1") for leaf in ("scale", "bias")]


@pytest.mark.parametrize("utility", ["gradient", "magnitude"])
@pytest.mark.parametrize("prune", ["threshold", "share"])
def test_the_chosen_in_each_tensor_are_those_of_an_independent_rewrite(utility, prune):
    factor = 0.5  # a share of which is a whole number of each tensor, but of the output's bias
    member = SelectiveWeightReinit(factor, every=1, utility=utility, prune=prune)
    (updates, state), (plain, kept), params, grads, parts = once(member)
    after = optax.apply_updates(params, updates)
    fresh = parts.initializer(jax.random.fold_in(parts.key, 1))["params"]
    assert sum(not np.any(np.not_equal(updates[m][n], plain[m][n])) for m, n in NORMS) == len(NORMS)
    for module, leaf in WEIGHTS:
        w = np.asarray(params[module][leaf] + plain[module][leaf], float).ravel()
        u = np.abs(w * np.asarray(grads[module][leaf]).ravel()) if utility == "gradient" else np.abs(w)
        if prune == "threshold":
            chosen = u <= factor * u.mean()
        else:
            chosen = np.isin(np.arange(u.size), np.argsort(u, kind="stable")[: u.size // 2])
            if u.size == 1:  # half of one: by chance
                continue
        found, target = np.ravel(after[module][leaf]), np.ravel(fresh[module][leaf])
        np.testing.assert_allclose(found, np.where(chosen, target, w), atol=1e-6)
        for a, b in zip(state.inner[0], kept[0], strict=True):
            np.testing.assert_array_equal(np.ravel(a[module][leaf]), np.where(chosen, 0, np.ravel(b[module][leaf])))


def test_the_mean_of_the_initial_law_is_zero_for_weights():
    member = SelectiveWeightReinit(0.5, every=1, utility="random", prune="share", value="mean")
    (updates, _), _, params, _, _ = once(member)
    after = optax.apply_updates(params, updates)
    kernels = leaves(after, *[(module, "kernel") for module in ("hidden_0", "hidden_1", "output")])
    assert abs(np.mean(kernels == 0) - 0.5) < 0.02


@pytest.mark.parametrize("prune", ["threshold", "share"])
def test_nothing_happens_when_it_is_not_due_or_with_a_negative_factor(prune):
    for member in (
        SelectiveWeightReinit(0.5, every=2, prune=prune),
        SelectiveWeightReinit(0.5, every=1, prune=prune).neutral(),
    ):
        (updates, state), (plain, kept), *_ = once(member)
        jax.tree.map(np.testing.assert_array_equal, updates, plain)
        jax.tree.map(np.testing.assert_array_equal, state.inner, kept)
