"""Diagnostics in a Flax Linen loop."""

import jax
import jax.numpy as jnp
from flax import linen as nn

import plasticity


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        pre = plasticity.tap("hidden/pre", nn.Dense(64)(x))
        return nn.Dense(1)(plasticity.tap("hidden/post", nn.relu(pre)))


params = Net().init(jax.random.key(0), jnp.zeros((1, 20)))
grad_fn = jax.jit(plasticity.capture(jax.grad(lambda p, x: jnp.mean((Net().apply(p, x) - jnp.sin(x[:, :1])) ** 2))))
monitor = plasticity.Monitor(every=50)
for step in range(201):
    grads, taps = grad_fn(params, jax.random.normal(jax.random.key(step), (256, 20)))
    params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
    if monitor.due(step):
        layers = {"hidden": (taps["hidden/pre"], taps["hidden/post"])}
        monitor.record(step, activations=layers, params=params["params"], grads=grads["params"])
print(monitor.explain())
