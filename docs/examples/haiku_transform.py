"""Diagnostics in a Haiku loop."""

import haiku as hk
import jax
import jax.numpy as jnp

import plasticity


def forward(x):
    pre = plasticity.tap("hidden/pre", hk.Linear(64)(x))
    return hk.Linear(1)(plasticity.tap("hidden/post", jax.nn.relu(pre)))


net = hk.without_apply_rng(hk.transform(forward))
params = net.init(jax.random.key(0), jnp.zeros((1, 20)))
grad_fn = jax.jit(plasticity.capture(jax.grad(lambda p, x: jnp.mean((net.apply(p, x) - jnp.sin(x[:, :1])) ** 2))))
monitor = plasticity.Monitor(every=50)
for step in range(201):
    grads, taps = grad_fn(params, jax.random.normal(jax.random.key(step), (256, 20)))
    params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
    if monitor.due(step):
        layers = {"hidden": (taps["hidden/pre"], taps["hidden/post"])}
        monitor.record(step, activations=layers, params=params, grads=grads)
print(monitor.explain())
