"""CPR, continuous partial resets: move every unit a little towards a fresh one, those with much gradient hardly."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax

from plasticity.config import static, traced
from plasticity.diagnostics.gradients import grama_scores
from plasticity.mitigations.base import Mitigation, Setting, mitigations
from plasticity.mitigations.resets import Seen, every, resetting, units_of
from plasticity.network import Params, get_at, set_at


class Scores(NamedTuple):
    """average: moving average of each unit's score, not corrected; mass: of the constant 1."""

    average: jax.Array
    mass: jax.Array


@mitigations.register("cpr")
class CPR(Mitigation):
    """Every `every` updates move all units towards fresh ones, by a share that falls with their share of the gradient.

        u_i <- moving average of G_i (`regrama`'s score, whose mean over a layer is 1), in every update, corrected
        p_i = strength min(2 sigmoid(-sharpness (u_i - 1)), 1)
        W_in,i <- (1 - p_i) W_in,i + p_i W_fresh,i,   then W_out,i <- (1 - p_i) W_out,i

    so a unit of average gradient or less moves by `strength`, one of twice the average not at all. Bias and norm
    parameters move with the incoming weights. There is no maturity, and the optimiser's state stays: what was learned
    of the gradients still holds for most of a weight.

    Known only from public code: strength .015, sharpness 16, decay .99, every 1,000 updates. There the average is not
    corrected for its start at 0, so that young averages count as idle.
    """

    reference = "LucMc/continual-learning 2026 (code; no paper)"
    cost = "a mean over the gradient in every update"
    stage = "reset"

    strength: float = traced(0.015, ge=0, le=1, positional=True, help="largest share that is replaced")
    sharpness: float = traced(16.0, ge=0, help="how fast the share falls with the score")
    decay: float = traced(0.99, ge=0, le=1, help="of the average of scores")
    every: int = static(1000, ge=1, unit="updates", help="period")

    def neutral(self) -> Self:
        return type(self)(0.0, self.sharpness, self.decay, self.every)

    def optimizer(
        self, tx: optax.GradientTransformationExtraArgs, setting: Setting
    ) -> optax.GradientTransformationExtraArgs:
        """Wrap `tx`; see `resets.resetting` for what `update` takes; `activations=` may be left out."""
        layers = units_of(self.name, setting)

        def start(params: Any) -> dict[str, Scores]:
            return {layer.name: Scores(jnp.zeros(layer.units), jnp.zeros(())) for layer in layers}

        def track(memory: Any, seen: Seen) -> dict[str, Scores]:
            def averaged(old: Any, new: Any) -> Any:
                return self.decay * old + (1 - self.decay) * new

            return {
                layer.name: Scores(
                    averaged(
                        memory[layer.name].average,
                        grama_scores(get_at(seen.gradient, layer.kernel)),
                    ),
                    averaged(memory[layer.name].mass, 1.0),
                )
                for layer in layers
            }

        def share(scores: Scores) -> jax.Array:
            u = scores.average / jnp.where(scores.mass > 0, scores.mass, 1.0)
            return self.strength * jnp.minimum(2 * jax.nn.sigmoid(-self.sharpness * (u - 1)), 1.0)

        def reset(params: Params, inner: Any, memory: Any, seen: Seen):
            fresh = setting.initializer(jax.random.fold_in(seen.key, seen.number))["params"]
            for layer in layers:
                p = share(memory[layer.name])
                for path in (layer.kernel, layer.bias, layer.norm_scale, layer.norm_bias, *layer.further):
                    if path is not None:
                        params = set_at(params, path, (1 - p) * get_at(params, path) + p * get_at(fresh, path))
            for layer in layers:
                for outgoing in layer.outgoing:
                    kept = 1 - outgoing.rows(share(memory[layer.name]), params)[:, None]
                    params = set_at(params, outgoing.kernel, kept * get_at(params, outgoing.kernel))
            return params, inner, memory

        return resetting(
            self.name,
            tx,
            setting,
            fires=every(self.every),
            reset=reset,
            start=start,
            track=track,
            reads_activations=False,
        )
