"""Diagnostics of plain JAX functions."""

import jax
import jax.numpy as jnp

import plasticity


def loss_fn(params, x):
    pre = plasticity.tap("hidden/pre", x @ params["hidden"])
    post = plasticity.tap("hidden/post", jax.nn.relu(pre))
    return jnp.mean((post @ params["output"] - jnp.sin(x[:, :1])) ** 2)


params = {"hidden": jax.random.normal(jax.random.key(0), (20, 64)) / 5, "output": jnp.zeros((64, 1))}
grad_fn = jax.jit(plasticity.capture(jax.grad(loss_fn)))
monitor = plasticity.Monitor(every=50)
for step in range(201):
    grads, taps = grad_fn(params, jax.random.normal(jax.random.key(step), (256, 20)))
    params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
    if monitor.due(step):
        layers = {"hidden": (taps["hidden/pre"], taps["hidden/post"])}
        monitor.record(step, activations=layers, params=params, grads=grads)
print(monitor.explain())
