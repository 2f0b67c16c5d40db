"""C-CHAIN: the lag, the coefficient and the churn of distributions, by hand."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.heads import Categorical, Regression, Softmax
from plasticity.mitigations import Context, Learner, mitigations
from plasticity.network import Network
from plasticity.networks import Architecture, networks
from plasticity.spec import build, build_one


def one(spec):
    (member,) = build(spec, mitigations)
    return member


def test_churn_of_distributions_is_a_divergence():
    """KL of (1/2, 1/2) from (3/4, 1/4) by hand, for one distribution and for two actions' side by side."""
    lagged, now = jnp.zeros((1, 2)), jnp.log(jnp.array([[3.0, 1.0]]))
    for logits, repeat in ((2, 1), (2, 2)):
        network = Network(
            init=None,  # pyrefly: ignore
            apply=lambda v, x, repeat=repeat: (jnp.tile(v["params"], (1, repeat)), {}, {}),
            units=(),
            logits=logits,
        )
        context = Context(network, {}, {}, reference=lambda: jnp.zeros(1))
        expected = 0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)
        assert float(one("c_chain").churn(now, lagged, context)) == pytest.approx(expected, rel=1e-6)
        slope = jax.grad(one("c_chain").churn)(lagged, lagged, context)
        np.testing.assert_allclose(slope, 0, atol=1e-7)


@pytest.mark.parametrize(("head", "logits"), [(Regression(0, 1), 0), (Softmax(10), 10), (Categorical(51, -1, 1), 51)])
def test_networks_say_whether_outputs_are_distributions(head, logits):
    assert build_one("mlp(8)", networks).build(Architecture(head, predictions=2)).logits == logits


def test_c_chain_compares_with_the_parameters_of_lag_updates_ago():
    """And its coefficient is the ratio of running means, after the warmup."""
    member = one("c_chain(0.5, lag=2, window=4, warmup=2, start=7)")
    network = Network(init=None, apply=lambda v, x: (x * v["params"], {}, {}), units=())  # pyrefly: ignore
    past = member.memory({"params": jnp.float32(0)}, network)
    loss = churn = 0.0
    history = [0.0, 0.0]
    for t, value in enumerate([1.0, 3.0, 6.0, 10.0]):
        context = Context(
            network,
            {},
            {},
            variables={"params": jnp.float32(value)},
            loss=lambda p: -p,
            reference=lambda: jnp.ones((1, 1)),
        )
        context = replace(context, memory=past)
        coefficient = 7.0 if t < 2 else 0.5 * loss / churn
        assert float(member.penalty(jnp.float32(value), context)) == pytest.approx(
            coefficient * (value - history[-2]) ** 2, rel=1e-5
        )
        slope = jax.grad(member.penalty)(jnp.float32(value), context)
        assert float(slope) == pytest.approx(coefficient * 2 * (value - history[-2]), rel=1e-5)
        loss, churn = loss + (value - loss) / 4, churn + ((value - history[-2]) ** 2 - churn) / 4
        learner = Learner({"params": jnp.float32(value + 1), "memory": {"c_chain": past}}, None)
        past = member.after_update(learner, context).variables["memory"]["c_chain"]
        history.append(value)
