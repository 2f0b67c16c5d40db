"""Plasticity injection: a fresh network beside the frozen old one (Nikishin et al. 2023, arXiv:2305.15555)."""

from __future__ import annotations

from dataclasses import replace

import jax

from plasticity.config import static
from plasticity.mitigations.base import Event, Learner, Mitigation, Setting, mitigations
from plasticity.networks.base import Architecture
from plasticity.networks.injection import frozen, own
from plasticity.networks.target_units import keeping_units


@mitigations.register("plasticity_injection")
class PlasticityInjection(Mitigation):
    """At event number `at`: f(x) = f_new(x) - f_anchor(x) + f_old(x), with f_old frozen and f_new = f_anchor fresh.

    f_anchor stays as it was drawn; f_new is trained, from a new optimiser state. The output does not change at the
    injection, to the bit; before it the network is the plain one, to the bit. Everything of f_new is fresh, norm
    scales, biases and running statistics too, and so are other members' memories, but for the scale of targets;
    penalties and resets act on f_new alone. Once only: after a later `full_reset` the network is plain. The whole
    network is injected, so that no layer goes on from its old weights (the source can share an encoder). `at=1` is
    this suite's default.
    """

    reference = "Nikishin et al. 2023, arXiv:2305.15555 (once)"
    stage = "event"
    cost = "two more forward passes after the injection; where runs are mapped, before it too"

    at: int = static(1, ge=1, positional=True, unit="events", help="number of the event at which it happens")

    def network(self, architecture: Architecture) -> Architecture:
        return replace(architecture, injectable=True)

    def on_event(self, key: jax.Array, learner: Learner, setting: Setting, event: Event) -> Learner:
        def inject(learner: Learner) -> Learner:
            fresh = keeping_units(setting.initializer(key), learner.variables)
            variables = {**fresh, "frozen": frozen(own(learner.variables), own(fresh), 1.0)}
            return Learner(variables, setting.restarted(variables))

        return jax.lax.cond(event.number == self.at, inject, lambda learner: learner, learner)
