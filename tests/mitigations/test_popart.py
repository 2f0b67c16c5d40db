"""PopArt: statistics by hand, predictions preserved, the gradient of normalised targets."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lab import HEADS, batch, method, setting

from plasticity.errors import UserError
from plasticity.mitigations import Context, Learner, compose, mitigations
from plasticity.mitigations.popart import Statistics
from plasticity.network import Network
from plasticity.networks import Architecture, networks
from plasticity.networks.options import Kernels
from plasticity.networks.target_units import TargetUnits
from plasticity.spec import build, build_one

X, _ = batch("regression")


def one(spec):
    (member,) = build(spec, mitigations)
    return member


def fresh(spec="popart(0.25)"):
    """(members, network, head, variables) with random biases everywhere."""
    chosen = method(spec)
    parts, head, variables = setting(chosen)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: p + jnp.asarray(0.1 * rng.normal(size=p.shape), jnp.float32), variables["params"])
    return chosen.mitigations, parts.network, head, {**variables, "params": params}


def after(members, network, variables, y):
    context = Context(network, {}, {}, variables=variables, targets=jnp.asarray(y, jnp.float32))
    return compose.after_update(members, Learner(variables, None), context).variables


def test_statistics_are_running_moments():
    """Against the source's recursion of mean and mean square, in numpy, with a large mean that cancels in float32."""
    member, rng, beta = one("popart(0.25)"), np.random.default_rng(0), 0.25
    found = member.memory({"params": {"o": {"bias": jnp.zeros(1)}}}, Network(None, None, (), output_kernel=("o", "k")))  # pyrefly: ignore
    assert (float(found.units.mean), float(found.units.deviation), float(found.units.gain)) == (0, 1, 0)
    mean = square = 0.0
    for t in range(1, 8):
        y = 1000 + t * rng.normal(size=32)
        step = beta / (1 - (1 - beta) ** t)
        mean, square = mean + step * (y.mean() - mean), square + step * ((y**2).mean() - square)
        found = member.moved(found, jnp.asarray(y, jnp.float32))
        deviation = np.sqrt(square - mean**2)
        assert float(found.units.mean) == pytest.approx(mean, rel=1e-6)
        assert float(found.units.deviation) == pytest.approx(deviation, rel=1e-3)
        assert float(found.units.gain) == pytest.approx(deviation**-2, rel=1e-3)


def test_the_first_batch_is_the_first_mean_and_constant_targets_meet_the_floor():
    member = one("popart(0.01, smallest=0.5)")
    start = Statistics(TargetUnits(jnp.float32(0), jnp.float32(1), jnp.float32(0)), jnp.float32(1), jnp.float32(0))
    found = member.moved(start, jnp.full(4, 7.0))
    assert (float(found.units.mean), float(found.units.deviation), float(found.units.gain)) == (7, 0.5, 4)
    assert float(found.variance) == 0


@pytest.mark.parametrize("spec", ["popart(0.25)", "popart(0.25)+layer_norm", "popart(0.25)+plasticity_injection"])
def test_predictions_are_preserved_when_the_statistics_move(spec):
    members, network, _, variables = fresh(spec)
    variables = after(members, network, variables, [3.0, 5.0])  # sets the statistics
    if "frozen" in variables:
        moved = jax.tree.map(lambda p: p + 0.1, variables["frozen"]["old"])
        variables = {**variables, "frozen": {**variables["frozen"], "old": moved, "active": jnp.ones(())}}
    before = network.apply(variables, X)[0]
    assert abs(float(before.mean())) > 0.5
    moved = after(members, network, variables, [30.0, 90.0])
    assert float(moved["memory"]["popart"].units.deviation) > 5
    np.testing.assert_allclose(network.apply(moved, X)[0], before, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm"])
def test_predictions_are_preserved_under_weight_normalisation_and_not_under_spectral(kind):
    member, architecture = one("popart(0.25)"), Architecture(HEADS["regression"], kernels=Kernels(kind))
    if kind == "spectral_norm":
        with pytest.raises(UserError, match="popart and spectral_norm cannot be combined: "):
            member.network(architecture)
        architecture = replace(architecture, kernels=Kernels(kind, "hidden"))
    network = build_one("mlp(8)", networks).build(member.network(architecture))
    variables = compose.initial([member], network, jax.random.key(0), X)
    variables = after([member], network, variables, [3.0, 5.0])
    moved = after([member], network, variables, [30.0, 90.0])
    np.testing.assert_allclose(network.apply(moved, X)[0], network.apply(variables, X)[0], rtol=2e-5, atol=2e-5)


def test_without_preserving_the_output_layer_stays_and_predictions_move():
    members, network, _, variables = fresh("popart(0.25, preserve=false)")
    first = after(members, network, variables, [3.0, 5.0])
    moved = after(members, network, first, [30.0, 90.0])
    jax.tree.map(np.testing.assert_array_equal, moved["params"], variables["params"])
    units = moved["memory"]["popart"].units
    raw = (network.apply(first, X)[0] - 4.0) / 1.0
    np.testing.assert_allclose(network.apply(moved, X)[0], units.deviation * raw + units.mean, rtol=1e-5)


def test_the_gradient_is_that_of_normalised_targets_and_the_loss_is_in_target_units():
    members, network, head, variables = fresh()
    variables = after(members, network, after(members, network, variables, [3.0, 5.0]), [30.0, 90.0])
    units, y = variables["memory"]["popart"].units, jnp.linspace(-20.0, 80.0, len(X))
    plain = setting(method())[0].network

    def loss(params):
        return jnp.mean(head.loss(network.apply({**variables, "params": params}, X)[0], y))

    def normalised(params):
        outputs = plain.apply({"params": params}, X)[0]
        return jnp.mean(head.loss(outputs, (y - units.mean) / units.deviation))

    value, found = jax.value_and_grad(loss)(variables["params"])
    expected, gradient = jax.value_and_grad(normalised)(variables["params"])
    assert float(value) == pytest.approx(float(expected * units.deviation**2), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, gradient)


def test_nothing_is_learned_before_the_first_statistics():
    _, network, head, variables = fresh()
    gradient = jax.grad(
        lambda p: jnp.mean(head.loss(network.apply({**variables, "params": p}, X)[0], jnp.full(len(X), 1e6)))
    )(variables["params"])
    assert not any(np.any(g) for g in jax.tree.leaves(gradient))


def test_errors_say_what_is_missing():
    members, network, _, variables = fresh()
    with pytest.raises(UserError, match="popart needs a regression task"):
        compose.architecture(members, Architecture(HEADS["classification"]))
    with pytest.raises(UserError, match="popart needs one prediction an example, got 4"):
        compose.architecture(members, Architecture(HEADS["regression"], predictions=4))
    with pytest.raises(UserError, match="popart cannot be used in an agent: it needs the targets of the batch"):
        compose.check_needs(members, "an agent", missing=["targets"])
    with pytest.raises(UserError, match=r"popart needs the targets of the batch: pass Context\(targets=...\)"):
        compose.after_update(members, Learner(variables, None), Context(network, {}, {}))
    with pytest.raises(UserError, match=r"pass all variables that `compose\.initial` made, not only params"):
        network.apply({"params": variables["params"]}, X)
    with pytest.raises(UserError, match="there is no parameter elsewhere/bias"):
        members[0].memory(variables, replace(network, output_kernel=("elsewhere", "kernel")))
