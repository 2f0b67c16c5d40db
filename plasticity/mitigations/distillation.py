"""Distillation into a fresh network at every task switch (after Igl et al. 2021, arXiv:2006.05826)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from plasticity.config import static
from plasticity.mitigations.base import Event, Learner, Mitigation, Setting, mitigations
from plasticity.networks.target_units import keeping_units
from plasticity.rng import named


@mitigations.register("distillation")
class Distillation(Mitigation):
    """theta <- argmin over a fresh theta' of E_x mean (f_theta'(x) - f_theta(x))^2, by `updates` updates of Adam.

    At each switch a network is drawn afresh and trained on batches of the inputs that are to be learned next (at an
    agent's event: on one batch of its replay), at the run's learning rate, to match the outputs of the old network
    as they are in evaluation. It then takes the old one's place with a new optimiser state; all of it is fresh,
    norm scales, biases, running statistics and other members' memories too, but for the scale of targets. The
    source's ITER distils policy and value with losses of their own, beside the training of the old network and on
    the data of that time. What outputs mean is not known here: squared error of outputs (logits, for classes).
    Penalties and resets are off meanwhile. `updates=200` is this suite's default.
    """

    reference = "Igl et al. 2021, arXiv:2006.05826"
    stage = "event"
    cost = "`updates` updates and forward passes at each event"

    updates: int = static(200, ge=1, positional=True, unit="updates", help="for which the fresh network is trained")

    def on_event(self, key: jax.Array, learner: Learner, setting: Setting, event: Event) -> Learner:
        network, tx = setting.network, optax.adam(setting.learning_rate)
        teacher = learner.variables
        start = keeping_units(setting.initializer(named(key, "fresh")), teacher)

        def update(i: jax.Array, carry: tuple[dict[str, Any], Any]) -> tuple[dict[str, Any], Any]:
            variables, state = carry
            data, noise = jax.random.split(jax.random.fold_in(key, i))
            x = event.inputs(data)
            target, _, _ = network.apply(teacher, x)

            def loss(params: Any) -> tuple[jax.Array, dict[str, Any]]:
                own = {**variables, "params": params}
                outputs, _, new_state = network.apply(own, x, noise if network.stochastic else None, train=True)
                return jnp.mean(jnp.square(outputs - target)), new_state

            grads, new_state = jax.grad(loss, has_aux=True)(variables["params"])
            updates, state = tx.update(grads, state, variables["params"])
            return {**variables, **new_state, "params": optax.apply_updates(variables["params"], updates)}, state

        variables, _ = jax.lax.fori_loop(0, self.updates, update, (start, tx.init(start["params"])))
        return Learner(variables, setting.restarted(variables))
