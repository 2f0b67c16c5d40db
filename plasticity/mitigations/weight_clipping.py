"""Weight clipping (Elsayed et al. 2024, arXiv:2407.01704)."""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp
import optax

from plasticity.config import static, traced
from plasticity.mitigations.base import Mitigation, Setting, mitigations
from plasticity.mitigations.layers import fan_ins, under
from plasticity.mitigations.renewal import output_layers


@mitigations.register("weight_clipping")
class WeightClipping(Mitigation):
    """After each update theta <- min(max(theta, -b), b), b = kappa / sqrt(fan-in of the parameter's own layer).

    1/sqrt(fan-in) is where Torch's layers start, so the source's kappa is a multiple of the initial range; it sweeps
    1 to 5. This suite's default is 3, the smallest of these that leaves all of its own initial weights alone: LeCun's
    normal, cut off at two deviations, reaches 2.27 / sqrt(fan-in). A bias has the bound of its own layer, whatever the
    order of parameters; in the source's code it is that of the parameter visited before it. Norm scales and offsets,
    which have no fan-in, are not clipped. Stateless.
    """

    reference = "Elsayed et al. 2024, arXiv:2407.01704 (kappa 1 to 5)"
    stage = "projection"
    padded = True

    kappa: float = traced(3.0, gt=0, positional=True, help="bound, in multiples of 1/sqrt(fan-in)")
    output: bool = static(True, help="clip the output layer too")

    def neutral(self) -> Self:
        return type(self)(kappa=1e30, output=self.output)

    def optimizer(
        self, tx: optax.GradientTransformationExtraArgs, setting: Setting
    ) -> optax.GradientTransformationExtraArgs:
        def update(updates: Any, state: Any, params: Any = None, **extra: Any):
            updates, state = tx.update(updates, state, params, **extra)
            outputs = under(params, output_layers(setting.network))

            def clip(u: jax.Array, p: jax.Array, fan_in: int, is_output: bool) -> jax.Array:
                if not fan_in or (is_output and not self.output):
                    return u
                bound = self.kappa * fan_in**-0.5
                new = p + u
                # What is within the bounds keeps its update to the bit.
                return jnp.where(jnp.abs(new) > bound, jnp.clip(new, -bound, bound) - p, u)

            return jax.tree.map(clip, updates, params, fan_ins(params, setting.network), outputs), state

        return optax.GradientTransformationExtraArgs(tx.init, update)
