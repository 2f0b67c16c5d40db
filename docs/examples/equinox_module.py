"""Diagnostics in an Equinox loop."""

import equinox as eqx
import jax
import jax.numpy as jnp

import plasticity


class Net(eqx.Module):
    hidden: eqx.nn.Linear
    output: eqx.nn.Linear

    def __call__(self, x):
        pre = plasticity.tap("hidden/pre", jax.vmap(self.hidden)(x))
        return jax.vmap(self.output)(plasticity.tap("hidden/post", jax.nn.relu(pre)))


net = Net(eqx.nn.Linear(20, 64, key=jax.random.key(0)), eqx.nn.Linear(64, 1, key=jax.random.key(1)))
grad_fn = jax.jit(plasticity.capture(jax.grad(lambda net, x: jnp.mean((net(x) - jnp.sin(x[:, :1])) ** 2))))
monitor = plasticity.Monitor(every=50)
for step in range(201):
    grads, taps = grad_fn(net, jax.random.normal(jax.random.key(step), (256, 20)))
    net = jax.tree.map(lambda p, g: p - 0.1 * g, net, grads)
    if monitor.due(step):
        layers = {"hidden": (taps["hidden/pre"], taps["hidden/post"])}
        monitor.record(step, activations=layers, params=vars(net), grads=vars(grads))
print(monitor.explain())
