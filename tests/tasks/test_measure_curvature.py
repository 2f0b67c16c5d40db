"""Curvature and kernels of a run of tasks, through its measure alone: when, of what, and without touching the run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from plasticity import curvature
from plasticity.curvature.readings import RECORDS
from plasticity.diagnostics import unit_of
from plasticity.errors import UserError
from plasticity.method import Method
from plasticity.mitigations import mitigations
from plasticity.networks import Architecture, networks
from plasticity.optimizers import optimizers
from plasticity.spec import build, build_one
from sweeps.rows import unit
from tasks.base import tasks
from tasks.data import load
from tasks.measure import Measure
from tasks.train import base_head, chunks, run_chunk, start

TASK = build_one("label_reset(eps=0.5, steps=6, num_tasks=4, batch_size=8, examples_used=16, pool=7)", tasks)
METHOD = Method(networks.get("mlp")(4, 1), build_one("adam(0.01)", optimizers), build("tanh", mitigations))
DATA = load("fashion_mnist", 16, 7)


def run(measure, seeds, count=2):
    """States and records of each seed, `[seeds, ...]`, after the first tasks, as one program a task."""
    ((span, chunk),) = chunks(TASK.steps, measure, 100)
    seeds = jnp.array(seeds, jnp.int32)
    advance = jax.jit(
        jax.vmap(
            lambda seed, state, index: run_chunk(TASK, METHOD, measure, span, seed, state, index, chunk, DATA),
            in_axes=(0, 0, None),
        )
    )
    state, records = jax.jit(jax.vmap(lambda seed: start(TASK, METHOD, seed, DATA)))(seeds), []
    for index in range(count):
        state, record = advance(seeds, state, jnp.int32(index))
        records.append(record)
    return state, records


MEASURE = Measure(ranks_every=0, points="end", reference=16, curvature_every=2, curvature_inputs=8)


@pytest.fixture(scope="module")
def measured():
    """Two runs in one program, which is as they are in a sweep."""
    return run(MEASURE, (0, 1))


def test_it_is_taken_at_the_end_of_every_second_task(measured):
    _, records = measured
    assert set(RECORDS) < set(records[0].final)
    for name in RECORDS:
        assert np.isnan(records[0].final[name]).all(), name  # NaN marks what is not due, and is not written
        assert np.isfinite(records[1].final[name]).all(), name


def test_it_is_of_the_network_and_the_task_as_they_are_then(measured):
    state, records = measured
    found = {name: np.asarray(records[1].final[name], np.float64) for name in RECORDS}
    for lane in range(2):
        params = jax.tree.map(lambda leaf, lane=lane: leaf[lane], state.learner.variables["params"])
        current = jax.tree.map(lambda leaf, lane=lane: leaf[lane], state.stream.current)
        expected = by_hand(params, current)
        for name, value in expected.items():
            assert found[name][lane] == pytest.approx(value, rel=2e-3, abs=1e-5), name
    assert (found["hessian_trace"] != found["hessian_trace"][0]).any()  # two runs, two networks


def by_hand(params, current):
    """The same from the whole Hessian and the whole Jacobian, in NumPy."""
    head = base_head(TASK.problem(DATA))
    network = METHOD.network.build(Architecture(head, activation="tanh"))
    batch = TASK.examples(current, jnp.arange(16), DATA)
    vector, unravel = ravel_pytree(params)

    def outputs(theta, x):
        return network.apply({"params": unravel(theta)}, x)[0]

    @jax.jit
    def matrices(theta):
        def losses(theta):
            return head.loss(outputs(theta, batch.x), batch.y)

        whole = jax.jacfwd(jax.grad(lambda theta: jnp.mean(losses(theta))))(theta)
        return whole, jax.jacrev(lambda theta: outputs(theta, batch.x[:8]))(theta), jax.jacrev(losses)(theta)[:8]

    hessian, jacobian, gradients = (np.asarray(found, np.float64) for found in matrices(vector))
    eigenvalues = np.linalg.eigvalsh(hessian)
    kernel = np.linalg.eigvalsh(np.einsum("iop,jop->ij", jacobian, jacobian))
    p = kernel / kernel.sum()
    unit = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    cosines = unit @ unit.T
    q = np.maximum(np.linalg.eigvalsh(cosines), 1e-30) / 8
    return {
        "hessian_largest_eigenvalue": eigenvalues[-1],
        "hessian_most_negative_eigenvalue": eigenvalues[0],
        "ntk_effective_rank": np.exp(-np.sum(p * np.log(p))),
        "ntk_top_share": p[-1],
        "ntk_condition": kernel[-1] / kernel[0],
        "gradient_cosine_mean": (cosines.sum() - 8) / 56,
        "gradient_cosine_effective_rank": np.exp(-np.sum(q * np.log(q))),
    }


def test_the_trace_is_that_of_the_hessian_within_its_error():
    matrix = np.diag(np.arange(1.0, 5))
    found = jax.jit(
        lambda params: curvature.readings(
            lambda outputs, y: jnp.mean(outputs),
            lambda p, x: x[:, 0] * (p @ matrix @ p) / 2,
            params,
            np.ones((3, 1)),
            np.zeros(3),
            jax.random.key(0),
        )
    )(jnp.ones(4))
    assert float(found["hessian_trace"]) == pytest.approx(10, rel=1e-4)  # exact for a diagonal Hessian
    assert float(found["hessian_largest_eigenvalue"]) == pytest.approx(4, rel=1e-4)
    assert float(found["hessian_most_negative_eigenvalue"]) == pytest.approx(1, rel=1e-4)
    p = np.arange(1, 5) / 10
    assert float(found["hessian_effective_rank"]) == pytest.approx(np.exp(-np.sum(p * np.log(p))), rel=1e-4)
    assert float(found["gradient_cosine_mean"]) == pytest.approx(1, rel=1e-4)  # all examples ask for the same
    assert float(found["ntk_effective_rank"]) == pytest.approx(1, abs=1e-2)


def recorded(measure):
    """Names at the points and at the end of a task, without compiling anything."""
    ((span, chunk),) = chunks(TASK.steps, measure, 100)
    seed = jnp.int32(0)
    state = jax.eval_shape(lambda: start(TASK, METHOD, seed, DATA))
    _, record = jax.eval_shape(lambda s: run_chunk(TASK, METHOD, measure, span, seed, s, seed, chunk, DATA), state)
    return set(record.dense), set(record.final)


def test_it_is_off_unless_asked_for():
    assert not set(RECORDS) & recorded(Measure(ranks_every=0, points="end"))[1]
    assert not set(RECORDS) & recorded(Measure(ranks_every=0, points="off", curvature_every=1))[1]


def test_it_may_be_named_among_the_further_diagnostics():
    dense, final = recorded(
        Measure(ranks_every=0, points="end", probe_updates=2, also="pca_rank, curvature_readings trainability")
    )
    assert set(RECORDS) | {"probe_loss"} < final
    assert "pca_rank" in dense
    with pytest.raises(UserError, match="Did you mean 'curvature_readings'"):
        Measure(also="curvature_reading")
    with pytest.raises(UserError, match=r"called on its own, as plasticity\.curvature\.tangent_kernel"):
        Measure(also="tangent_kernel")


def test_what_is_recorded_has_a_unit():
    assert {name: unit(name) for name in RECORDS} == RECORDS
    assert unit_of("firing_age_mean") == "updates"


@pytest.mark.parametrize(("inputs", "x"), [(0, np.ones((3, 1))), (2, np.ones((0, 1)))])
def test_no_inputs_are_told(inputs, x):
    with pytest.raises(UserError, match=r"inputs must be at least 1|not zero"):
        curvature.readings(
            lambda o, y: jnp.mean(o),
            lambda p, x: x[:, 0] * p,
            jnp.ones(()),
            x,
            x[:, 0],
            jax.random.key(0),
            inputs=inputs,
        )
