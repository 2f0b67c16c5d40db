"""Shrink and perturb at a task switch (Ash & Adams 2020, arXiv:1910.08475)."""

from __future__ import annotations

from typing import Self

import jax

from plasticity.config import static, traced
from plasticity.mitigations.base import Event, Learner, Mitigation, Setting, mitigations


@mitigations.register("shrink_perturb")
class ShrinkPerturb(Mitigation):
    """theta <- shrink theta + perturb theta_fresh, theta_fresh from the layers' own initialisers, at each switch.

    All parameters take part, norm scales and offsets too. The original rebuilds the optimiser as well
    (`reset_optimizer=true`); off by default so that zero strength (shrink 1, perturb 0) is absence.

    One name stands for several rules in the literature and in public code:

        theta <- a theta + b theta_fresh       at a switch      the original        shrink_perturb(shrink=a, perturb=b)
        theta <- (1 - c) theta + c theta_0     at a switch      Hare & Tortoise     shrink_to_init(c)
        W <- a W + N(0, s^2)                   at a switch      DASH's baseline     shrink_gaussian(shrink=a, ...)
        theta <- (1 - lr w) theta + N(0, s^2)  in every update  Dohare et al. 2024  noisy_decay(decay=w, sigma=s)
        theta <- (1 - c) theta + b theta_fresh in every update  the soft form       soft_shrink_perturb(c, b)
        theta <- (1 - c) theta + c theta_0     in every update  Plasticine, which gives 1 - c: not here

    Other code gives the variance s^2 where s stands, or multiplies it by the learning rate.
    """

    reference = "Ash & Adams 2020, arXiv:1910.08475 (shrink .4, perturb .1)"
    stage = "event"
    padded = True

    shrink: float = traced(0.4, ge=0, le=1, help="factor on the trained parameters")
    perturb: float = traced(0.1, ge=0, help="factor on a fresh draw")
    reset_optimizer: bool = static(False, help="also restart the optimiser's state")

    def neutral(self) -> Self:
        return type(self)(shrink=1.0, perturb=0.0)

    def on_event(self, key: jax.Array, learner: Learner, setting: Setting, event: Event) -> Learner:
        params = jax.tree.map(
            lambda p, fresh: self.shrink * p + self.perturb * fresh,
            learner.variables["params"],
            setting.initializer(key)["params"],
        )
        variables = {**learner.variables, "params": params}
        return Learner(variables, setting.restarted(variables) if self.reset_optimizer else learner.opt_state)
