"""Relatives of shrink and perturb at a task switch: towards the initial parameters, and with Gaussian noise.

`shrink_perturb` has the table of what the name stands for elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp

from plasticity.config import static, traced
from plasticity.errors import UserError
from plasticity.mitigations.base import Event, Learner, Mitigation, Setting, mitigations
from plasticity.mitigations.penalties import roles
from plasticity.network import Network, Params, get_at, set_at
from plasticity.rng import named


def _moved(learner: Learner, params: Params, setting: Setting, reset_optimizer: bool) -> Learner:
    variables = {**learner.variables, "params": params}
    return Learner(variables, setting.restarted(variables) if reset_optimizer else learner.opt_state)


@mitigations.register("shrink_to_init")
class ShrinkToInit(Mitigation):
    """theta <- (1 - strength) theta + strength theta_0 at each switch, theta_0 the parameters this run began with.

    strength weighs theta_0, so .8 keeps a fifth of what was learned: the opposite of `shrink_perturb`, whose `shrink`
    is what is kept. There is no fresh noise: units that were twins or dead at initialisation become so again. All
    parameters take part, norm scales and offsets too. The sources rebuild the optimiser as well
    (`reset_optimizer=true`); off by default so that zero strength is absence.
    """

    reference = "Lee et al. 2024, arXiv:2406.02596 (as a baseline, .8)"
    cost = "nothing between switches; memory: one more copy of the parameters"
    stage = "event"
    padded = True

    strength: float = traced(0.8, ge=0, le=1, positional=True, help="weight of the initial parameters")
    reset_optimizer: bool = static(False, help="also restart the optimiser's state")

    def neutral(self) -> Self:
        return type(self)(0.0, self.reset_optimizer)

    def memory(self, variables: Mapping[str, Any], network: Network) -> Params:
        # A copy: parameters and memory must not share a buffer.
        return jax.tree.map(jnp.copy, variables["params"])

    def on_event(self, key: jax.Array, learner: Learner, setting: Setting, event: Event) -> Learner:
        memories = learner.variables.get("memory", {})
        if self.name not in memories:
            raise UserError(
                f"{self.name} needs the initial parameters in variables['memory']['{self.name}']: start from "
                "plasticity.mitigations.compose.initial"
            )
        params = jax.tree.map(
            lambda p, p0: (1 - self.strength) * p + self.strength * p0, learner.variables["params"], memories[self.name]
        )
        return _moved(learner, params, setting, self.reset_optimizer)


@mitigations.register("shrink_gaussian")
class ShrinkGaussian(Mitigation):
    """W <- shrink W + N(0, deviation^2) on all kernels at each switch; everything else stays.

    The noise has one deviation for all layers, whatever their fan-in: `shrink_perturb` scales it as each layer's own
    initialiser does. Biases, norm scales and offsets are left alone. The source rebuilds the optimiser as well
    (`reset_optimizer=true`); off by default so that zero strength (shrink 1, deviation 0) is absence.
    """

    reference = "Shin et al. 2024, arXiv:2410.23495 (a baseline; .3, .01)"
    stage = "event"
    padded = True

    shrink: float = traced(0.3, ge=0, le=1, help="factor on the kernels")
    deviation: float = traced(0.01, ge=0, help="of the noise on them")
    reset_optimizer: bool = static(False, help="also restart the optimiser's state")

    def neutral(self) -> Self:
        return type(self)(1.0, 0.0, self.reset_optimizer)

    def on_event(self, key: jax.Array, learner: Learner, setting: Setting, event: Event) -> Learner:
        params = learner.variables["params"]
        for path in roles(params, setting.network).weights:
            w = get_at(params, path)
            noise = jax.random.normal(named(key, "/".join(path)), w.shape)
            params = set_at(params, path, self.shrink * w + self.deviation * noise)
        return _moved(learner, params, setting, self.reset_optimizer)
