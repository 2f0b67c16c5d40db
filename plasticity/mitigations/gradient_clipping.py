"""Adaptive gradient clipping, AGC (Brock et al. 2021, arXiv:2102.06171)."""

from __future__ import annotations

from typing import Any, Self

import jax
import optax

from plasticity.config import static, traced
from plasticity.mitigations.base import Mitigation, Setting, mitigations
from plasticity.mitigations.layers import under
from plasticity.mitigations.renewal import output_layers


@mitigations.register("gradient_clipping")
class GradientClipping(Mitigation):
    """Each unit's gradient is cut to `clipping` times the norm of the unit's weights.

    G <- G clipping max(|W|, 1e-3) / |G| where |G| exceeds it, with the norms of a unit's incoming weights (a column of
    a dense kernel, a filter); a vector (biases, norm scales and offsets) counts as one unit. The gradient is that of
    the loss with penalties, before the optimiser. As published the output layer is left alone.
    """

    reference = "Brock et al. 2021, arXiv:2102.06171 (clipping .01, eps 1e-3)"
    stage = "gradient"
    padded = True

    clipping: float = traced(0.01, gt=0, positional=True, help="largest norm of a gradient over that of its weights")
    output: bool = static(False, help="clip the output layer too")

    def neutral(self) -> Self:
        return type(self)(clipping=1e30, output=self.output)

    def optimizer(
        self, tx: optax.GradientTransformationExtraArgs, setting: Setting
    ) -> optax.GradientTransformationExtraArgs:
        rule = optax.adaptive_grad_clip(self.clipping)

        def update(updates: Any, state: Any, params: Any = None, **extra: Any):
            clipped, _ = rule.update(updates, rule.init(params), params)
            if not self.output:
                kept = under(params, output_layers(setting.network))
                clipped = jax.tree.map(lambda c, g, keep: g if keep else c, clipped, updates, kept)
            return tx.update(clipped, state, params, **extra)

        return optax.GradientTransformationExtraArgs(tx.init, update)
