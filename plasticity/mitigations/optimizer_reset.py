"""A fresh optimiser state at every task switch."""

from __future__ import annotations

import jax

from plasticity.mitigations.base import Event, Learner, Mitigation, Setting, mitigations


@mitigations.register("optimizer_reset")
class OptimizerReset(Mitigation):
    """state <- init(theta) at each switch: moments, velocities and counts, and what other members keep in it.

    Parameters stay, norm scales and biases too. Under Adam the first updates are then of size lr in every entry,
    whatever the gradient; Asadi et al. do it whenever a target network is replaced.
    """

    reference = "Asadi et al. 2023, arXiv:2306.17833"
    stage = "event"

    def on_event(self, key: jax.Array, learner: Learner, setting: Setting, event: Event) -> Learner:
        return learner._replace(opt_state=setting.restarted(learner.variables))
