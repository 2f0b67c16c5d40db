"""ReDo: recycle dormant units (Sokar et al. 2023, arXiv:2302.12902)."""

from __future__ import annotations

from typing import Any, Self

import optax

from plasticity.config import static, traced
from plasticity.diagnostics.units import dormant_mask
from plasticity.mitigations.base import Mitigation, Setting, mitigations
from plasticity.mitigations.resets import Seen, every, fresh_units, resetting, units_of
from plasticity.network import Params


@mitigations.register("redo")
class Redo(Mitigation):
    """Every `every` updates, re-initialise the units whose dormancy score on the current batch is at most `tau`.

    The score is mean |h_i| over the batch divided by its mean over the layer's units, as the diagnostic `dormant_units`
    has it. Incoming weights, bias and norm parameters get a fresh draw, then outgoing weights become zero, then the
    optimiser's state of exactly these entries restarts. Recycling a dead unit (score 0) leaves the network's output
    unchanged, unless a layer norm ties it to its neighbours. tau = 0.1 is the source's value for sample-efficient
    agents; tau < 0 recycles nothing.
    """

    reference = "Sokar et al. 2023, arXiv:2302.12902 (tau .025, every 1,000 updates)"
    cost = "nothing between the checks"
    stage = "reset"
    resets_units = True

    tau: float = traced(0.025, ge=-1, le=1, help="largest score that counts as dormant")
    every: int = static(1000, ge=1, unit="updates", help="period of the check")

    def neutral(self) -> Self:
        return type(self)(tau=-1.0, every=self.every)

    def optimizer(
        self, tx: optax.GradientTransformationExtraArgs, setting: Setting
    ) -> optax.GradientTransformationExtraArgs:
        """Wrap `tx`; see `resets.resetting` for what `update` takes."""

        layers, activation = units_of(self.name, setting), setting.network.activation

        def reset(params: Params, inner: Any, memory: Any, seen: Seen):
            masks = {
                layer.name: dormant_mask(seen.activations[layer.name].post, self.tau, activation) for layer in layers
            }
            return *fresh_units(tx, setting, params, inner, seen, masks), memory

        return resetting(self.name, tx, setting, fires=every(self.every), reset=reset)
