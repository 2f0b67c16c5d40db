"""The Gaussian histogram head as a mitigation: its text, its support, what it refuses, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lab import HEADS

from plasticity.errors import UserError
from plasticity.heads import Categorical, HLGauss
from plasticity.method import Method
from plasticity.mitigations import compose, mitigations
from plasticity.networks import Architecture, networks
from plasticity.optimizers import optimizers
from plasticity.spec import build, build_one, to_text
from tasks.base import tasks
from tasks.data import load
from tasks.measure import Measure
from tasks.train import chunks, run_chunk, start


@pytest.mark.parametrize(
    ("spec", "head"),
    [
        ("hl_gauss", HLGauss(101, -1.0, 1.0, 0.75)),
        ("hl_gauss(11, spread=2)", HLGauss(11, -1.0, 1.0, 2.0)),
        ("hl_gauss(51, low=-3, high=4)", HLGauss(51, -3.0, 4.0, 0.75)),
        ("hl_gauss(high=2)", HLGauss(101, -1.0, 2.0, 0.75)),
    ],
)
def test_text_and_support(spec, head):
    (member,) = build(spec, mitigations)
    assert to_text(member) == spec
    architecture = compose.architecture([member], Architecture(HEADS["regression"], predictions=3))
    assert architecture == Architecture(head, predictions=3)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hl_gauss(low=1, high=1)", "hl_gauss: low must be below high, got low=1.0, high=1.0"),
        ("hl_gauss(low=2, high=1)", "hl_gauss: low must be below high"),
        ("hl_gauss(1)", "hl_gauss: bins must be >= 2, got 1"),
        ("hl_gauss(spread=0)", "hl_gauss: spread must be > 0, got 0"),
    ],
)
def test_impossible_values(spec, message):
    with pytest.raises(UserError, match=message):
        build(spec, mitigations)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (HEADS["classification"], "hl_gauss needs a regression task .* the targets are classes already"),
        (Categorical(51, -10.0, 10.0), "hl_gauss needs a regression task .* the head is a distribution already"),
    ],
)
def test_heads_that_it_cannot_replace(head, message):
    with pytest.raises(UserError, match=message):
        compose.architecture(build("hl_gauss", mitigations), Architecture(head))


def test_not_together_with_two_hot():
    with pytest.raises(UserError, match="hl_gauss and two_hot cannot be combined"):
        compose.canonical(build("hl_gauss+two_hot", mitigations))


def test_it_learns_a_regression():
    """Targets around 3, 300 updates: from near chance to a good share of their variance."""
    task = build_one("offset_regression(3, steps=300, num_tasks=1, batch_size=16, examples_used=64, pool=4)", tasks)
    data, off = load("fashion_mnist", 64, 4), Measure(points="off", ranks_every=0)
    method = Method(networks.get("mlp")(32, 2), optimizers.get("adam")(3e-3), tuple(build("hl_gauss(51)", mitigations)))
    ((span, chunk),) = chunks(task.steps, off, 300)
    state = start(task, method, jnp.int32(0), data)
    output = state.learner.variables["params"]["output"]["kernel"]
    assert output.shape == (32, 51)
    run = jax.jit(lambda s: run_chunk(task, method, off, span, jnp.int32(0), s, jnp.int32(0), chunk, data))
    _, record = run(state)
    final = {name: np.asarray(value).ravel()[-1] for name, value in record.final.items()}
    assert final["end_loss"] < 0.5
    assert final["end_score"] > 0.5
