"""A small training loop for the tests of mitigations: every hook in it, fixed data, no task stream."""

import dataclasses
from functools import lru_cache

import jax
import jax.numpy as jnp
import optax

from plasticity.heads import Regression, Softmax
from plasticity.method import Method
from plasticity.mitigations import Context, Learner, Setting, compose, mitigations
from plasticity.networks import Architecture, networks
from plasticity.optimizers import optimizers
from plasticity.rng import stream
from plasticity.spec import build
from tasks.data import load

HEADS = {"regression": Regression(-1.0, 1.0), "classification": Softmax(10)}
EVENT = 3  # the number of the update before which the event comes
STEPS = 5


@lru_cache
def batch(kind):
    """16 Fashion-MNIST images, pooled to 7 x 7, with their labels or with targets in [-1, 1]."""
    # Numbers also where somebody asks first while tracing.
    with jax.ensure_compile_time_eval():
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


def method(members=(), optimizer="adam") -> Method:
    """Members, or their spec, on an MLP of two layers of eight units."""
    if isinstance(members, str):
        members = build(members, mitigations)
    return Method(networks.get("mlp")(8, 2), build(optimizer, optimizers)[0], compose.canonical(members))


def setting(method, kind="regression", seed=0):
    """(setting with the composed optimiser, head, parameters at initialisation)."""
    architecture = compose.architecture(method.mitigations, Architecture(HEADS[kind]))
    network = method.network.build(architecture)
    x, _ = batch(kind)

    def initializer(key):
        return network.init(key, x)

    base = Setting(network, initializer, method.optimizer.lr, stream(seed, "mitigation"))
    variables = initializer(stream(seed, "init"))
    return compose.optimizer(method.mitigations, method.optimizer, base), architecture.head, variables


def train(method, seed, kind, steps=STEPS):
    """(learner, loss before each update) after `steps` updates with an event before number `EVENT`."""
    parts, head, variables = setting(method, kind, seed)
    network, tx, initial = parts.network, parts.tx, variables["params"]
    x, y = batch(kind)

    def loss_fn(params, variables):
        outputs, activations, state = network.apply({**variables, "params": params}, x)
        loss = jnp.mean(head.loss(outputs, y))
        penalty = compose.penalty(method.mitigations, params, Context(network, initial, activations))
        return loss + penalty, (loss, activations, state)

    def step(learner, number):
        key = jax.random.fold_in(parts.key, number)
        learner = jax.lax.cond(
            number == EVENT,
            lambda learner: compose.on_switch(method.mitigations, key, learner, parts),
            lambda learner: learner,
            learner,
        )
        params = learner.variables["params"]
        grads, (loss, activations, state) = jax.grad(loss_fn, has_aux=True)(params, learner.variables)
        updates, opt_state = tx.update(grads, learner.opt_state, params, activations=activations, step=number)
        variables = {**learner.variables, **state, "params": optax.apply_updates(params, updates)}
        return Learner(variables, opt_state), loss

    return jax.lax.scan(step, Learner(variables, tx.init(initial)), jnp.arange(steps))
