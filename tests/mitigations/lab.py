"""A small training loop for the tests of mitigations: every hook in it, fixed data, no task stream."""

import contextlib
import dataclasses
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import optax

from plasticity.errors import UserError
from plasticity.heads import Regression, Softmax
from plasticity.method import Method
from plasticity.mitigations import Context, Event, Learner, Setting, compose, mitigations
from plasticity.networks import Architecture, networks
from plasticity.optimizers import optimizers
from plasticity.rng import stream
from plasticity.spec import build
from tasks.data import load

HEADS = {"regression": Regression(-1.0, 1.0), "classification": Softmax(10)}
#: And that of sequence models, which stand on no other problem.
ALL_HEADS = {**HEADS, "tokens": Softmax(7)}
EVENT = 3  # the number of the update before which the event comes
STEPS = 5


@lru_cache
def batch(kind):
    """16 Fashion-MNIST images, pooled to 7 x 7, with their labels or with targets in [-1, 1].

    Of tokens 8 sequences of 9, each to predict the one before.
    """
    # Numbers also where somebody asks first while tracing.
    with jax.ensure_compile_time_eval():
        if kind == "tokens":
            x = jax.random.randint(jax.random.key(0), (8, 9), 0, 7)
            return x, jnp.roll(x, 1, axis=1)
        data = load("fashion_mnist", 16, 4)
        y = data.labels if kind == "classification" else jnp.sin(data.labels.astype(jnp.float32))
        return data.inputs(jnp.arange(16)), y


def quick(member):
    """The member with every period of updates shortened, so that it acts within a few steps."""
    periods = {
        f.name: 2
        for f in dataclasses.fields(member)
        if f.metadata["type"] is int and f.metadata["static"] and f.metadata["unit"] == "updates"
    }
    return dataclasses.replace(member, **periods)


def member(name):
    """A member with its defaults, shortened."""
    return quick(mitigations.get(name)())


def kinds_of(*members) -> list[str]:
    """The kinds of problems that these can stand on together."""
    kinds = []
    for kind, head in HEADS.items():
        with contextlib.suppress(UserError):
            compose.architecture(compose.canonical(members), Architecture(head))
            kinds.append(kind)
    return kinds


def kind_of(*members) -> str | None:
    """The first of these; None if there is none."""
    return next(iter(kinds_of(*members)), None)


def finite(learner) -> bool:
    """Whether all variables are."""
    return all(np.all(np.isfinite(p)) for p in jax.tree.leaves(learner.variables))


def method(members=(), optimizer="adam") -> Method:
    """Members, or their spec, on an MLP of two layers of eight units."""
    if isinstance(members, str):
        members = build(members, mitigations)
    return Method(networks.get("mlp")(8, 2), build(optimizer, optimizers)[0], compose.canonical(members))


def setting(method, kind="regression", seed=0):
    """(setting with the composed optimiser, head, parameters at initialisation)."""
    architecture = compose.architecture(method.mitigations, Architecture(ALL_HEADS[kind]))
    network = method.network.build(architecture)
    x, _ = batch(kind)

    def initializer(key):
        return compose.initial(method.mitigations, network, key, x)

    base = Setting(network, initializer, method.optimizer.lr, stream(seed, "mitigation"))
    variables = initializer(stream(seed, "init"))
    return compose.optimizer(method.mitigations, method.optimizer, base), architecture.head, variables


def train(method, seed, kind, steps=STEPS):
    """(learner, loss before each update) after `steps` updates with an event before number `EVENT`."""
    parts, head, initial = setting(method, kind, seed)
    members, network, tx = method.mitigations, parts.network, parts.tx
    x, y = batch(kind)

    def step(learner, number):
        key = jax.random.fold_in(parts.key, number)

        def forward(params, variables):
            noise = key if network.stochastic else None
            outputs, activations, state = network.apply({**variables, "params": params}, x, noise, train=True)
            return jnp.mean(head.loss(outputs, y)), (outputs, activations, state)

        def gradient(variables, key):
            return jax.grad(lambda p: forward(p, variables)[0])(variables["params"])

        event = Event(jnp.int32(1), lambda key: x, gradient)
        learner = jax.lax.cond(
            number == EVENT,
            lambda learner: compose.on_switch(members, key, learner, parts, event),
            lambda learner: learner,
            learner,
        )
        variables, params = learner.variables, learner.variables["params"]

        def context(outputs, activations):
            return Context(
                network,
                initial,
                activations,
                outputs,
                variables,
                inputs=x,
                targets=y,
                loss=lambda p: forward(p, variables)[0],
                reference=lambda: (x[::-1] * 0.5).astype(x.dtype),
                following=lambda: activations,
            )

        def objective(params):
            loss, found = forward(params, variables)
            return loss + compose.penalty(members, params, context(*found[:2])), (loss, *found)

        grads, (loss, outputs, activations, state) = compose.gradient(members, jax.grad(objective, has_aux=True))(
            params
        )
        extra = {"activations": activations, "step": number, "elapsed": number / steps}
        updates, opt_state = tx.update(grads, learner.opt_state, params, **extra)
        learner = Learner({**variables, **state, "params": optax.apply_updates(params, updates)}, opt_state)
        return compose.after_update(members, learner, context(outputs, activations)), loss

    return jax.lax.scan(step, Learner(initial, parts.restarted(initial)), jnp.arange(steps))
