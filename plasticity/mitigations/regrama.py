"""ReGraMa: recycle units whose incoming weights get hardly any gradient (Liu et al. 2025, arXiv:2505.24061)."""

from __future__ import annotations

from typing import Any, Self

import jax.numpy as jnp
import optax

from plasticity.config import static, traced
from plasticity.diagnostics.gradients import grama_mask
from plasticity.mitigations.base import Mitigation, Setting, mitigations
from plasticity.mitigations.resets import Seen, every, fresh_units, resetting, units_of
from plasticity.network import Params, get_at


@mitigations.register("regrama")
class ReGraMa(Mitigation):
    """Every `every` updates, re-initialise the units with G_i <= tau, in the way of `redo`.

    G_i = mean over incoming weights |dL/dW_i| / its mean over the layer's units, the absolute value of the batch's
    mean gradient, penalties included; convolutions: over kernel positions too. In a layer without any gradient all
    scores are 0. Unlike ReDo's score it also sees units that fire but no longer learn, and it works for nonlinearities
    that are never zero.

    A unit that was just recycled has outgoing weights of zero, hence no gradient and a score of exactly 0. So it is
    left alone in the next `grace` checks; other code has no grace and recycles it again if the checks are frequent.

    tau .01 is the value of a public port (the authors' code was not available), the period and the grace are this
    suite's defaults. tau < 0 recycles nothing. Biases and norm parameters are redrawn with the unit, but do not count
    in its score.
    """

    reference = "Liu et al. 2025, arXiv:2505.24061"
    cost = "nothing between the checks"
    stage = "reset"
    resets_units = True

    tau: float = traced(0.01, ge=-1, positional=True, help="largest score that counts as inactive")
    every: int = static(1000, ge=1, unit="updates", help="period of the check")
    grace: int = static(1, ge=0, unit="checks", help="checks that a recycled unit is left alone")

    def neutral(self) -> Self:
        return type(self)(tau=-1.0, every=self.every, grace=self.grace)

    def optimizer(
        self, tx: optax.GradientTransformationExtraArgs, setting: Setting
    ) -> optax.GradientTransformationExtraArgs:
        """Wrap `tx`; see `resets.resetting` for what `update` takes. The memory: checks of grace left, by unit."""
        layers = units_of(self.name, setting)

        def start(params: Any) -> dict[str, Any]:
            return {layer.name: jnp.zeros(layer.units, jnp.int32) for layer in layers}

        def reset(params: Params, inner: Any, left: Any, seen: Seen):
            masks = {
                layer.name: grama_mask(get_at(seen.gradient, layer.kernel), self.tau) & (left[layer.name] == 0)
                for layer in layers
            }
            left = {name: jnp.where(mask, self.grace, jnp.maximum(left[name] - 1, 0)) for name, mask in masks.items()}
            return *fresh_units(tx, setting, params, inner, seen, masks), left

        return resetting(
            self.name, tx, setting, fires=every(self.every), reset=reset, start=start, reads_activations=False
        )
