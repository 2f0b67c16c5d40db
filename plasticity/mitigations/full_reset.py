"""Full re-initialisation at every task switch: the fresh-network reference, not a mitigation of its own."""

from __future__ import annotations

import jax

from plasticity.mitigations.base import Event, Learner, Mitigation, Setting, mitigations


@mitigations.register("full_reset")
class FullReset(Mitigation):
    """A fresh network and a fresh optimiser state at each switch, by the layers' own initialisers.

    Nothing is carried over, so its end-of-task score is what an untrained network reaches on the same task with the
    same budget: loss of plasticity is the difference to it, paired by seed.
    """

    reference = "the retrained baseline of Dohare et al. 2024, Nature 632"
    stage = "event"

    def on_event(self, key: jax.Array, learner: Learner, setting: Setting, event: Event) -> Learner:
        variables = setting.initializer(key)
        return Learner(variables, setting.restarted(variables))
