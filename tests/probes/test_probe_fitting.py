"""Probes that train copies: known answers, an independent rewrite, aged against fresh, jit and vmap, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity import probes
from plasticity.errors import UserError
from plasticity.heads import Regression, Softmax
from plasticity.networks.base import Architecture
from plasticity.networks.mlp import MLP
from plasticity.probes.fitting import fit
from plasticity.rng import named

X = np.random.default_rng(0).normal(size=(32, 5)).astype(np.float32)
CLASSES = 3
NETWORK = MLP(width=16, depth=2).build(Architecture(Softmax(CLASSES)))
ADAM = optax.adam(1e-2)


def initializer(key):
    return NETWORK.init(key, jnp.zeros((1, 5)))


def linear(params, x):
    return x @ params["w"] + params["b"]


def linear_init(key):
    return {"w": jax.random.normal(key, (5, 2)), "b": jnp.zeros(2)}


def dead(variables):
    """All units of the last hidden layer killed by their bias: what is left to learn is the output's bias."""
    params = variables["params"]
    hidden = params["hidden_1"] | {"bias": params["hidden_1"]["bias"] - 1e3}
    return {"params": params | {"hidden_1": hidden}}


@jax.jit
def trained(key, variables):
    return probes.trainability(key, NETWORK, variables, initializer, X, ADAM, 400)


@jax.jit
def labelled(key, variables):
    return probes.random_labels(key, NETWORK, variables, initializer, X, ADAM, 400)


@jax.jit
def capable(key, variables):
    return probes.target_fitting_capacity(key, NETWORK, variables, initializer, X, ADAM, 100, targets=3)


AGED = initializer(jax.random.key(7))


# --- the loop -------------------------------------------------------------------------------------------------------


def test_the_loop_is_gradient_descent_on_drawn_batches():
    """A linear model, plain SGD: the same in float64 NumPy."""
    rng, key, n, updates, rate = np.random.default_rng(1), jax.random.key(3), 8, 6, 0.05
    x, y = rng.normal(size=(n, 5)), rng.normal(size=(n, 2))
    params = linear_init(jax.random.key(0))
    done = fit(
        key,
        linear,
        lambda o, y: jnp.mean((o - y) ** 2, axis=1),
        params,
        jnp.asarray(x),
        jnp.asarray(y),
        optax.sgd(rate),
        None,
        updates,
        4,
        every=2,
    )
    w, b = np.asarray(params["w"], np.float64), np.zeros(2)
    losses = [np.mean((x @ w + b - y) ** 2)]
    for i in range(updates):
        index = np.asarray(jax.random.randint(jax.random.fold_in(key, i), (4,), 0, n))
        error = (x[index] @ w + b - y[index]) * 2 / (4 * 2)
        w, b = w - rate * x[index].T @ error, b - rate * error.sum(0)
        losses.append(np.mean((x @ w + b - y) ** 2))
    np.testing.assert_allclose(done.curve, losses[::2], rtol=1e-5)
    np.testing.assert_allclose(done.params["w"], w, rtol=1e-5)
    assert float(done.loss) == float(done.curve[-1])


# --- trainability ---------------------------------------------------------------------------------------------------


def test_a_fresh_network_learns_and_one_with_dead_units_does_not():
    alive, killed = trained(jax.random.key(0), AGED), trained(jax.random.key(0), dead(AGED))
    assert float(alive.loss) < 0.5
    assert float(killed.loss) > 0.95
    assert float(killed.fresh_loss) == float(alive.fresh_loss)


def test_a_fresh_network_as_the_aged_one_has_no_gap_on_average():
    found = jax.jit(jax.vmap(lambda key: trained(named(key, "probe"), initializer(key))))(
        jax.random.split(jax.random.key(1), 24)
    )
    gap = np.asarray(found.loss - found.fresh_loss)
    assert abs(gap.mean()) < 3 * gap.std(ddof=1) / np.sqrt(gap.size)
    assert gap.std() > 0


def test_the_targets_are_those_of_the_definition():
    """No learning rate: the loss is the distance of the outputs to targets that are made here in NumPy."""
    key, rest = jax.random.key(5), {"tx": optax.sgd(0.0), "updates": 2}
    aged = linear_init(jax.random.key(9))
    f = X @ np.asarray(linear_init(named(key, "target"))["w"])[:, 0]
    outputs = X @ np.asarray(aged["w"])[:, 0]
    for offset in (None, 8.0):
        found = probes.trainability(key, linear, aged, linear_init, X, offset=offset, frequency=3.0, **rest)
        y = (outputs.mean() if offset is None else offset) + np.sin(3.0 * f)
        assert float(found.loss) == pytest.approx(np.mean((outputs - y) ** 2) / y.var(), rel=1e-4)
        fresh = X @ np.asarray(linear_init(named(key, "fresh"))["w"])[:, 0]
        y = (fresh.mean() if offset is None else offset) + np.sin(3.0 * f)
        assert float(found.fresh_loss) == pytest.approx(np.mean((fresh - y) ** 2) / y.var(), rel=1e-4)


def test_the_mean_of_the_outputs_does_not_matter_unless_the_offset_is_given():
    key = jax.random.key(2)
    aged = linear_init(jax.random.key(9))
    moved = aged | {"b": aged["b"] + 50.0}

    def loss(params, **options):
        return float(probes.trainability(key, linear, params, linear_init, X, optax.sgd(0.05), 50, **options).loss)

    assert loss(moved) == pytest.approx(loss(aged), rel=1e-2)
    assert loss(moved, offset=0.0) > 10 * loss(aged, offset=0.0)


def test_curves_begin_before_the_first_update_and_end_at_the_loss():
    found = probes.trainability(jax.random.key(0), linear, AGED_LINEAR, linear_init, X, ADAM, 40, every=10)
    plain = probes.trainability(jax.random.key(0), linear, AGED_LINEAR, linear_init, X, ADAM, 40)
    assert found.curve.shape == found.fresh_curve.shape == (5,)
    assert plain.curve is None
    assert plain.fresh_curve is None
    assert float(found.curve[-1]) == pytest.approx(float(found.loss), rel=1e-6)
    assert float(plain.loss) == pytest.approx(float(found.loss), rel=1e-5)
    assert float(found.curve[0]) > float(found.curve[-1])


AGED_LINEAR = linear_init(jax.random.key(9))


def test_a_carried_optimizer_state_counts_for_the_aged_copy_only():
    """Momentum that points nowhere good throws the copy off course."""
    tx = optax.sgd(0.01, momentum=0.9)
    state = tx.init(AGED_LINEAR)
    heavy = jax.tree.map(lambda m: m + 30.0, state)
    key = jax.random.key(0)
    fresh = probes.trainability(key, linear, AGED_LINEAR, linear_init, X, tx, 5)
    same = probes.trainability(key, linear, AGED_LINEAR, linear_init, X, tx, 5, carried=state)
    thrown = probes.trainability(key, linear, AGED_LINEAR, linear_init, X, tx, 5, carried=heavy)
    assert float(same.loss) == float(fresh.loss)
    assert float(thrown.loss) > 2 * float(fresh.loss)
    assert float(thrown.fresh_loss) == float(fresh.fresh_loss)


# --- capacity -------------------------------------------------------------------------------------------------------


def test_a_linear_model_fits_linear_targets_and_dead_units_fit_none():
    found = probes.target_fitting_capacity(
        jax.random.key(0), linear, AGED_LINEAR, linear_init, X, optax.adam(0.1), 300, targets=4
    )
    assert float(found.loss) < 1e-3 * float(found.variance)
    assert float(found.loss) == pytest.approx(float(found.losses.mean()))
    assert found.losses.shape == found.fresh_losses.shape == (4,)
    killed, alive = capable(jax.random.key(0), dead(AGED)), capable(jax.random.key(0), AGED)
    assert float(killed.loss) > 0.95 * float(killed.variance)
    assert float(alive.loss) < 0.5 * float(alive.variance)


def test_the_error_is_the_distance_to_outputs_of_random_networks():
    key = jax.random.key(4)
    found = probes.target_fitting_capacity(
        key, linear, AGED_LINEAR, linear_init, X, optax.sgd(0.0), 1, targets=2, every=1
    )
    draws = [linear_init(named(k, "target")) for k in jax.random.split(named(key, "targets"), 2)]
    expected = [np.mean((X @ np.asarray(AGED_LINEAR["w"]) - X @ np.asarray(draw["w"])) ** 2) for draw in draws]
    np.testing.assert_allclose(found.losses, expected, rtol=1e-5)
    assert float(found.variance) == pytest.approx(
        np.mean([(X @ np.asarray(d["w"])).var(axis=0) for d in draws]), rel=1e-5
    )


def test_the_best_loss_forgives_steps_that_go_astray():
    rest = (jax.random.key(4), linear, AGED_LINEAR, linear_init, X, optax.sgd(5.0), 3)
    end, best = (probes.target_fitting_capacity(*rest, targets=2, every=every).losses for every in (None, 1))
    assert (np.asarray(end) > 10 * np.asarray(best)).all()


# --- random labels --------------------------------------------------------------------------------------------------


def test_random_labels_are_memorised_by_a_live_network_only():
    alive, killed = labelled(jax.random.key(0), AGED), labelled(jax.random.key(0), dead(AGED))
    assert float(alive.accuracy) > 0.9
    assert float(killed.accuracy) <= float(killed.chance) + 1e-6
    assert float(killed.loss) > 0.9 * np.log(CLASSES)
    assert float(alive.loss) < 0.5 * float(killed.loss)
    assert float(killed.fresh_accuracy) == float(alive.fresh_accuracy) > 0.9


def test_random_labels_without_learning_are_chance():
    key = jax.random.key(3)
    zero = {"w": jnp.zeros((5, 2)), "b": jnp.zeros(2)}
    found = probes.random_labels(key, linear, zero, lambda key: zero, X, optax.sgd(0.0), 2, every=1)
    y = np.asarray(jax.random.randint(named(key, "labels"), (32,), 0, 2))
    assert float(found.loss) == pytest.approx(np.log(2))
    assert float(found.accuracy) == pytest.approx(np.mean(y == 0))  # of equal logits the first
    assert float(found.chance) == pytest.approx(max(np.mean(y == 0), np.mean(y == 1)))
    np.testing.assert_allclose(found.curve, np.log(2), rtol=1e-6)


# --- warm start -----------------------------------------------------------------------------------------------------


def test_warm_start_gap_of_dead_units_is_negative_and_of_fresh_ones_zero():
    y = (X[:, 0] > 0).astype(np.int32)
    data = {"train": (X, y), "test": (X[:20], y[:20])}
    run = jax.jit(lambda v: probes.warm_start(jax.random.key(0), NETWORK, v, initializer, **data, tx=ADAM, updates=200))
    found = run(dead(AGED))
    assert float(found.fresh) > 0.9
    assert float(found.gap) == float(found.continued) - float(found.fresh) < -0.2
    assert float(run(initializer(named(jax.random.key(0), "fresh"))).gap) == 0


def test_warm_start_takes_the_losses_and_scores_of_a_head():
    head = Regression(-1.0, 1.0)
    y = X[:, 0]
    found = probes.warm_start(
        jax.random.key(0),
        linear,
        AGED_LINEAR,
        linear_init,
        (X, y),
        (X, y),
        optax.adam(0.1),
        200,
        loss=head.loss,
        score=lambda outputs, y: head.score(head.predict(outputs), y),
    )
    assert float(found.continued) > 0.99
    assert float(found.fresh) > 0.99


# --- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", [trained, labelled, capable])
def test_nothing_is_mutated_and_keys_decide_everything(probe):
    key = jax.random.key(11)
    variables = jax.tree.map(np.array, AGED)
    before, data = jax.tree.map(np.copy, variables), jax.random.key_data(key)
    first, second = probe(key, variables), probe(key, variables)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    jax.tree.map(np.testing.assert_array_equal, variables, before)
    np.testing.assert_array_equal(jax.random.key_data(key), data)
    assert float(probe(jax.random.key(12), variables).loss) != float(first.loss)


@pytest.mark.parametrize("probe", [trained, labelled, capable])
def test_many_runs_at_once_are_the_runs_one_by_one(probe):
    keys = jax.random.split(jax.random.key(2), 2)
    runs = jax.vmap(initializer)(keys)
    together = jax.vmap(probe)(keys, runs)
    for i in range(2):
        alone = probe(keys[i], jax.tree.map(lambda leaf, i=i: leaf[i], runs))
        # Targets of a high frequency: a last bit of f is 0.01 of their phase.
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(a, b[i], rtol=0.1, atol=0.03)


@pytest.mark.parametrize("probe", [trained, labelled, capable])
def test_parameters_that_are_not_finite_give_nan_and_leave_the_fresh_network_alone(probe):
    broken = jax.tree.map(lambda p: p.at[0].set(jnp.nan), AGED)
    found = probe(jax.random.key(0), broken)
    assert np.isnan(found.loss)
    assert np.isfinite(found.fresh_loss)
    if probe is labelled:
        assert np.isnan(found.accuracy)


def test_degenerate_inputs_have_defined_answers():
    rest = (linear_init, jnp.ones((4, 5)), ADAM, 3)
    found = probes.trainability(jax.random.key(0), linear, AGED_LINEAR, *rest)
    assert np.isnan(found.loss)  # constant targets have no variance
    assert np.isnan(found.fresh_loss)
    one = (linear_init, np.ones((1, 5)), ADAM, 3)
    with pytest.raises(UserError, match="at least 2"):
        probes.trainability(jax.random.key(0), linear, AGED_LINEAR, *one)
    assert float(probes.target_fitting_capacity(jax.random.key(0), linear, AGED_LINEAR, *one, targets=1).variance) == 0
    assert float(probes.random_labels(jax.random.key(0), linear, AGED_LINEAR, *one).chance) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"updates": 0}, "updates must be a whole number >= 1"),
        ({"updates": 2.5}, "updates must be a whole number"),
        ({"updates": True}, "updates must be a whole number"),
        ({"batch_size": -1}, "batch_size must be"),
        ({"every": 3}, "must divide"),
        ({"every": 0}, "every must be"),
        ({"x": np.float32(1)}, "examples"),
        ({"x": np.zeros((0, 5))}, "examples"),
        ({"network": 3}, "Network or a function"),
        ({"network": lambda params, x: jnp.sum(x)}, "outputs shaped"),
        ({"network": lambda params, x: linear(params, x)[None]}, "outputs shaped"),
        ({"network": NETWORK}, "'params'"),
    ],
)
@pytest.mark.parametrize("probe", [probes.trainability, probes.target_fitting_capacity, probes.random_labels])
def test_bad_budgets_and_shapes_are_told(probe, changes, message):
    given = {
        "key": jax.random.key(0),
        "network": linear,
        "variables": AGED_LINEAR,
        "initializer": linear_init,
        "x": X,
        "tx": ADAM,
        "updates": 4,
    }
    with pytest.raises(UserError, match=message):
        probe(**given | changes)


def test_traced_budgets_are_told():
    with pytest.raises(UserError, match="known when the program is compiled"):
        jax.jit(lambda n: probes.trainability(jax.random.key(0), linear, AGED_LINEAR, linear_init, X, ADAM, n))(3)


def test_bad_classes_targets_and_data_are_told():
    rest = (jax.random.key(0), linear, AGED_LINEAR, linear_init)
    for classes, message in [(3, "2 outputs"), (1, "classes must be"), ("2", "classes must be")]:
        with pytest.raises(UserError, match=message):
            probes.random_labels(*rest, X, ADAM, 4, classes=classes)
    with pytest.raises(UserError, match="classes must be"):
        probes.random_labels(jax.random.key(0), lambda p, x: linear(p, x)[:, 0], AGED_LINEAR, linear_init, X, ADAM, 4)
    with pytest.raises(UserError, match="targets must be"):
        probes.target_fitting_capacity(*rest, X, ADAM, 4, targets=0)
    with pytest.raises(UserError, match="same examples"):
        probes.warm_start(*rest, (X, np.zeros(3, int)), (X, np.zeros(32, int)), ADAM, 4)
