"""Diagnostics in a Flax NNX loop."""

import jax
import jax.numpy as jnp
from flax import nnx

import plasticity


class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.output = nnx.Linear(20, 64, rngs=rngs), nnx.Linear(64, 1, rngs=rngs)

    def __call__(self, x):
        pre = plasticity.tap("hidden/pre", self.hidden(x))
        return self.output(plasticity.tap("hidden/post", nnx.relu(pre)))


graph, params = nnx.split(Net(nnx.Rngs(0)))
loss_fn = lambda p, x: jnp.mean((nnx.merge(graph, p)(x) - jnp.sin(x[:, :1])) ** 2)  # noqa: E731
grad_fn, monitor = jax.jit(plasticity.capture(jax.grad(loss_fn))), plasticity.Monitor(every=50)
for step in range(201):
    grads, taps = grad_fn(params, jax.random.normal(jax.random.key(step), (256, 20)))
    params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
    if monitor.due(step):
        layers = {"hidden": (taps["hidden/pre"], taps["hidden/post"])}
        monitor.record(step, activations=layers, params=nnx.to_pure_dict(params), grads=nnx.to_pure_dict(grads))
print(monitor.explain())
