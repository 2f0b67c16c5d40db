"""A fresh draw of the last layers at every event (Nikishin et al. 2022, arXiv:2205.07802)."""

from __future__ import annotations

import jax

from plasticity.config import static
from plasticity.mitigations.base import Event, Learner, Mitigation, Setting, mitigations
from plasticity.mitigations.renewal import hidden_layers, output_layers, renew


@mitigations.register("layer_reset")
class LayerReset(Mitigation):
    """The output layers and the `last` hidden layers before them <- a fresh draw, with their optimiser state.

    Layers are counted in the order of the unit graph; the hidden layers of two streams count as one, and in a residual
    network the kernel behind a block's inner layer restarts with it. Biases, normalisations of these layers and their
    running statistics restart too; normalisations of a residual stream stay. The source resets at fixed periods of
    updates, which in this suite is what an agent's events are; `last=1` is this suite's default. `head_reset` leaves
    all hidden layers.
    """

    reference = "Nikishin et al. 2022, arXiv:2205.07802; Schwarzer et al. 2023, arXiv:2305.19452"
    stage = "event"
    resets_units = True

    last: int = static(1, ge=1, positional=True, unit="layers", help="hidden layers that restart, counted from the end")

    def on_event(self, key: jax.Array, learner: Learner, setting: Setting, event: Event) -> Learner:
        layers = [*output_layers(setting.network), *hidden_layers(setting.network, self.last)]
        return renew(learner, setting.initializer(key), layers, setting)
