"""A fresh output layer at every task switch (a baseline of Dohare et al. 2024, Nature 632)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from plasticity.config import static
from plasticity.mitigations.base import Event, Learner, Mitigation, Setting, mitigations
from plasticity.mitigations.renewal import output_layers, renew
from plasticity.network import get_at, set_at


@mitigations.register("head_reset")
class HeadReset(Mitigation):
    """Output kernel and bias <- a fresh draw, or zero, at each switch; both output layers of two streams.

    The optimiser's state of exactly these entries restarts (the source leaves SGD's velocity as it was). `zeros` is
    the source's rule in its ImageNet study: the body has no gradient in the first update after the switch. Deviations
    of noisy layers are those of a fresh network in either form. With an injected network it is the trained one's.
    """

    reference = "Dohare et al. 2024, Nature 632 (zeros, at every task of continual ImageNet)"
    stage = "event"
    resets_units = True

    zeros: bool = static(False, help="zero instead of a fresh draw")

    def on_event(self, key: jax.Array, learner: Learner, setting: Setting, event: Event) -> Learner:
        fresh, layers = setting.initializer(key), output_layers(setting.network)
        if self.zeros:
            for layer in layers:
                weights = get_at(fresh["params"], layer)
                if isinstance(weights, dict):
                    weights = {k: jnp.zeros_like(w) if k in ("kernel", "bias") else w for k, w in weights.items()}
                else:
                    weights = jnp.zeros_like(weights)
                fresh = {**fresh, "params": set_at(fresh["params"], layer, weights)}
        return renew(learner, fresh, layers, setting)
