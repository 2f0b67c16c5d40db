"""Shrink and perturb in small steps towards fresh draws of the network (Juliani & Ash 2024, arXiv:2405.19153)."""

from __future__ import annotations

from typing import Self

import jax
import optax

from plasticity.config import static, traced
from plasticity.mitigations.base import Mitigation, Setting, mitigations
from plasticity.mitigations.wrapping import Step, around, when
from plasticity.network import Params


@mitigations.register("soft_shrink_perturb")
class SoftShrinkPerturb(Mitigation):
    """theta <- (1 - decay) theta + perturb theta_fresh after every `every` updates, a new theta_fresh each time.

    theta_fresh is drawn by the layers' own initialisers, and all parameters take part: scales of norms are drawn
    towards 1, their offsets and the biases towards their initial values. The optimiser's state stays. With every=1, as
    published, each update draws a whole network, about what `noisy_decay` costs; a larger period with strengths to
    match is much cheaper and almost the same: n updates shrink by (1 - decay)^n, and add draws with a deviation of
    about sqrt(n) perturb around a mean of n perturb times the initialisers' mean. The decay is not multiplied by the
    learning rate. It is given as 1 minus the published factor, which float32 would round by 1%.
    """

    reference = "Juliani & Ash 2024, arXiv:2405.19153 (decay 1e-6, perturb 1e-6)"
    stage = "decay"
    cost = "a draw of the whole network in each update (of `every`)"

    decay: float = traced(1e-6, ge=0, le=1, positional=True, help="share of the parameters that is taken away")
    perturb: float = traced(1e-6, ge=0, positional=True, help="factor on a fresh draw")
    every: int = static(1, ge=1, unit="updates", help="period")

    def neutral(self) -> Self:
        return type(self)(decay=0.0, perturb=0.0, every=self.every)

    def optimizer(
        self, tx: optax.GradientTransformationExtraArgs, setting: Setting
    ) -> optax.GradientTransformationExtraArgs:
        def after(step: Step, own: tuple[()]) -> tuple[Params, tuple[()]]:
            def act(updates: Params) -> Params:
                # As a change of the update, which is none to the bit where both strengths are 0.
                return jax.tree.map(
                    lambda u, p, fresh: u - self.decay * (p + u) + self.perturb * fresh,
                    updates,
                    step.params,
                    setting.initializer(step.key)["params"],
                )

            return when(step.number % self.every == 0, act, step.updates), own

        return around(tx, setting, after=after)
