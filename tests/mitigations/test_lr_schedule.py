"""The schedule of the learning rate within a task: its shapes, what it multiplies, and that it starts anew."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from plain_loop import GRADS, LR, PARAMS, SGD, around, close, one, same, setting

from plasticity.errors import UserError
from plasticity.method import Method
from plasticity.mitigations import compose, mitigations
from plasticity.mitigations.lr_schedule import LRSchedule
from plasticity.networks import networks
from plasticity.optimizers import optimizers
from plasticity.optimizers import stepping as stepping_module
from plasticity.spec import build, build_one, to_text
from tasks.base import tasks
from tasks.measure import Measure
from tasks.train import chunks, run_chunk, start

OFF = Measure(points="off", ranks_every=0)
UPDATES = 60  # of a task, in comparisons


def member(text):
    return build_one(text, mitigations)


def path_of(text, updates=UPDATES):
    """The factor in every update of a task of so many."""
    return np.asarray(jax.vmap(member(text).multiplier)(jnp.arange(updates) / updates))


def composed(members, optimizer):
    config = build_one(optimizer, optimizers)
    return compose.optimizer(compose.canonical(build(members, mitigations)), config, setting()).tx


# Shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr_schedule(constant)", {0: 1, 0.5: 1, 0.999: 1}),
        ("lr_schedule(constant, warmup=0.2)", {0: 0, 0.05: 0.25, 0.1: 0.5, 0.2: 1, 0.9: 1}),
        ("lr_schedule(constant, warmup=1)", {0: 0, 0.5: 0.5, 1: 1}),
        ("lr_schedule", {0: 1, 0.25: (2 + math.sqrt(2)) / 4, 0.5: 0.5, 0.75: (2 - math.sqrt(2)) / 4, 1: 0}),
        ("lr_schedule(final=0.1)", {0: 1, 0.5: 0.55, 1: 0.1}),
        ("lr_schedule(warmup=0.5)", {0.25: 0.5, 0.5: 1, 0.75: 0.5}),
        ("lr_schedule(linear)", {0: 1, 0.25: 0.75, 0.5: 0.5, 1: 0}),
        ("lr_schedule(linear, final=0.2)", {0.5: 0.6, 1: 0.2}),
        ("lr_schedule(linear, warmup=0.2)", {0.1: 0.5, 0.2: 1, 0.6: 0.5}),
        ("lr_schedule(steps)", {0: 1, 0.299: 1, 0.3: 0.2, 0.599: 0.2, 0.6: 0.04, 0.8: 0.008, 0.999: 0.008}),
        ("lr_schedule(steps, milestones='0.25 0.5', factor=0.5)", {0.2: 1, 0.25: 0.5, 0.5: 0.25}),
        ("lr_schedule(steps, milestones=0.5, factor=2)", {0.4: 1, 0.6: 2}),
        ("lr_schedule(steps, warmup=0.4)", {0.1: 0.25, 0.3: 0.75 * 0.2, 0.4: 0.2, 0.6: 0.04}),
    ],
)
def test_shapes_by_hand(text, expected):
    found = {e: float(member(text).multiplier(e)) for e in expected}
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "theirs"),
    [
        ("lr_schedule(final=0.1)", optax.cosine_decay_schedule(1.0, UPDATES, alpha=0.1)),
        (
            "lr_schedule(final=0.1, warmup=0.1)",
            optax.warmup_cosine_decay_schedule(0.0, 1.0, UPDATES // 10, UPDATES, end_value=0.1),
        ),
        ("lr_schedule(linear, final=0.1)", optax.linear_schedule(1.0, 0.1, UPDATES)),
        ("lr_schedule(steps)", optax.piecewise_constant_schedule(1.0, {18: 0.2, 36: 0.2, 48: 0.2})),
        ("lr_schedule(constant, warmup=0.1)", optax.linear_schedule(0.0, 1.0, UPDATES // 10)),
    ],
)
def test_a_task_is_a_schedule_of_optax(text, theirs):
    np.testing.assert_allclose(path_of(text), [theirs(count) for count in range(UPDATES)], atol=2e-6)


@pytest.mark.parametrize("length", [10, 30, 1130, 4500, 99_990, 100_000])
def test_a_milestone_is_passed_in_its_update_however_the_share_rounds(length):
    """0.3, 0.6 and 0.8 are no float32, and a compiler may multiply by a rounded 1 / length."""
    share = jax.jit(lambda step, length: member("lr_schedule(steps)").multiplier(step / length))
    reciprocal = jax.jit(lambda step: member("lr_schedule(steps)").multiplier(step * (jnp.float32(1) / length)))
    for tenths, before, after in ((3, 1, 0.2), (6, 0.2, 0.04), (8, 0.04, 0.008)):
        at = length * tenths // 10
        for step, expected in ((at - 1, before), (at, after)):
            assert float(share(jnp.int32(step), jnp.int32(length))) == pytest.approx(expected)
            assert float(reciprocal(jnp.int32(step))) == pytest.approx(expected)


# What is multiplied -----------------------------------------------------------------------------------------------

EPOCHS, BATCHES = 20, 3


def trained(tx, params, rates=None):
    """The parameters after a task of so many epochs on gradients that return. rates: factors by hand."""
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(EPOCHS * BATCHES):
        extra = {"elapsed": step / (EPOCHS * BATCHES)} if rates is None else {}
        change, state = update(GRADS[step % len(GRADS)], state, params, **extra)
        scale = 1.0 if rates is None else rates[step]
        params = jax.tree.map(lambda p, u, s=scale: p + s * u, params, change)
    return params


@pytest.mark.parametrize(
    ("members", "optimizer", "theirs"),
    [
        ("lr_schedule(steps)", "sgd(0.1, momentum=0.9)", ("SGD", {"lr": 0.1, "momentum": 0.9})),
        ("lr_schedule(steps)+weight_decay(0.05)", "adam(0.01)", ("AdamW", {"lr": 0.01, "weight_decay": 0.05})),
    ],
)
def test_a_task_is_a_task_with_the_schedule_of_torch(members, optimizer, theirs):
    """MultiStepLR at epochs 6, 12 and 16 of 20, on fixed gradients, with momentum or decoupled decay."""
    torch = pytest.importorskip("torch")
    found = trained(composed(members, optimizer), PARAMS)
    tensors = [torch.nn.Parameter(torch.tensor(np.array(p))) for p in jax.tree.leaves(PARAMS)]
    name, options = theirs
    opt = getattr(torch.optim, name)(tensors, **options)
    schedule = torch.optim.lr_scheduler.MultiStepLR(opt, [6, 12, 16], 0.2)
    for epoch in range(EPOCHS):
        for batch in range(BATCHES):
            grads = jax.tree.leaves(GRADS[(epoch * BATCHES + batch) % len(GRADS)])
            for tensor, gradient in zip(tensors, grads, strict=True):
                tensor.grad = torch.tensor(np.array(gradient))
            opt.step()
        schedule.step()
    expected = jax.tree.unflatten(jax.tree.structure(PARAMS), [t.detach().numpy() for t in tensors])
    for layer in ("h", "o"):  # torch decays norms, too
        close(found[layer], expected[layer], rtol=1e-4, atol=1e-5)


def test_the_velocity_knows_nothing_of_the_rate():
    tx = composed("lr_schedule(linear)", "sgd(0.1, momentum=0.9)")
    rates = 1 - np.arange(EPOCHS * BATCHES) / (EPOCHS * BATCHES)
    plain = composed("none", "sgd(0.1, momentum=0.9)")
    close(trained(tx, PARAMS), trained(plain, PARAMS, rates))


def test_decoupled_decay_is_multiplied():
    """Zero gradient, lr .1, decay .5, after the first milestone: -.2 x .1 x .5 of the weight."""
    still = jax.tree.map(jnp.zeros_like, PARAMS)
    moved = one(composed("weight_decay(0.5)+lr_schedule(steps)", f"sgd({LR})"), grads=still, elapsed=0.5)
    np.testing.assert_allclose(moved["h"]["kernel"], -0.01 * PARAMS["h"]["kernel"], rtol=1e-6)


def test_what_stands_outside_is_not_multiplied():
    """At rate 0, in the first update of a warm-up, noise is still, and the other members act all the same."""
    start = "lr_schedule(warmup=0.1)"
    still = one(composed(f"{start}+weight_decay+noisy_decay+noisy_sgd", f"sgd({LR})"), elapsed=0.0)
    assert not any(map(np.any, jax.tree.leaves(still)))
    tx = composed(f"{start}+project_norm", f"sgd({LR})")
    grown = jax.tree.map(lambda p: 2 * p, PARAMS)
    projected, _ = tx.update(GRADS[0], tx.init(PARAMS), grown, elapsed=0.0)
    np.testing.assert_allclose(projected["h"]["kernel"], -PARAMS["h"]["kernel"], rtol=1e-5)
    reset = one(composed(f"{start}+cpr(1.0, every=1)", f"sgd({LR})"), elapsed=0.0, activations={})
    assert any(map(np.any, jax.tree.leaves(reset)))


@pytest.mark.parametrize("shape", ["constant", "cosine", "linear", "steps"])
def test_neutral_is_absence_to_the_bit(shape):
    neutral = LRSchedule(shape, warmup=0.3).neutral()
    assert neutral.shape == shape
    for elapsed in (0.0, 0.1, 0.45, 0.99):
        same(one(around(neutral), elapsed=elapsed), one(SGD))
    same(one(around(LRSchedule("constant")), elapsed=0.7), one(SGD))


def test_updates_keep_their_type():
    low = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    moved = one(around(LRSchedule()), low, low, elapsed=jnp.float32(0.5))
    assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == {jnp.dtype(jnp.bfloat16)}


# In a stream of tasks ---------------------------------------------------------------------------------------------


def test_every_task_begins_anew_whatever_its_length(monkeypatch):
    """Two classes of four examples, then four: 2 epochs of 2 and of 4 updates, in chunks of 4 at most."""
    task = build_one(
        "class_incremental(2, epochs=2, num_tasks=2, per_class=4, batch_size=4, examples_used=200, pool=4)", tasks
    )
    data, seed, seen = task.load(), jnp.int32(0), []
    lengths = [int(task.length(index, data)) for index in range(2)]
    assert lengths == [4, 8]
    method = Method(networks.get("mlp")(4, 1), build_one("sgd(0.1)", optimizers), (LRSchedule("steps"),))
    original = stepping_module.step

    def watched(tx, gradient, state, params, **extra):
        jax.debug.callback(lambda step, share: seen.append((int(step), float(share))), extra["step"], extra["elapsed"])
        return original(tx, gradient, state, params, **extra)

    monkeypatch.setattr(stepping_module, "step", watched)
    state = start(task, method, seed, data)
    for index, length in enumerate(lengths):
        for span, chunk in chunks(length, OFF, 4):
            state, _ = run_chunk(task, method, OFF, span, seed, state, jnp.int32(index), chunk, data)
    jax.effects_barrier()
    expected = [i / length for length in lengths for i in range(length)]
    assert [step for step, _ in sorted(seen)] == list(range(12))
    assert [share for _, share in sorted(seen)] == pytest.approx(expected)


# Bad input ----------------------------------------------------------------------------------------------------------


def test_a_loop_of_ones_own_is_told_what_to_pass():
    tx = around(LRSchedule())
    with pytest.raises(UserError, match=r"lr_schedule: update\(\.\.\.\) needs elapsed=, the share of the current task"):
        one(tx)
    with pytest.raises(UserError, match="elapsed must be the share of a task, from 0 to 1, got 3"):
        one(tx, elapsed=3)


@pytest.mark.parametrize("milestones", ["", "0.5 0.3", "0.3 0.3", "0 0.5", "0.5 1", "60 120 160", "half", "nan"])
def test_milestones_are_increasing_shares(milestones):
    with pytest.raises(UserError, match=f"increasing shares of a task between 0 and 1, .* got {milestones!r}"):
        LRSchedule("steps", milestones=milestones)


def test_values_that_do_not_go_together_are_told():
    with pytest.raises(UserError, match=r"milestones='0\.5' are for shape=steps, and shape is cosine"):
        member("lr_schedule(milestones=0.5)")
    with pytest.raises(UserError, match=r"unknown value of lr_schedule: shape 'cosin'\. Did you mean 'cosine'\?"):
        member("lr_schedule(cosin)")
    with pytest.raises(UserError, match="warmup must be >= 0 and <= 1, got 5"):
        member("lr_schedule(warmup=5)")
    text = "lr_schedule(steps, milestones='0.5 0.75', factor=0.1)"
    assert to_text(member(text)) == text
