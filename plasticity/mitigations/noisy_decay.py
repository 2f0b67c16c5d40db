"""Shrink and perturb in every update (Dohare et al. 2024, Nature 632)."""

from __future__ import annotations

from typing import Self

import jax
import optax

from plasticity.config import traced
from plasticity.mitigations.base import Mitigation, Setting, mitigations
from plasticity.mitigations.wrapping import Step, around, normals
from plasticity.network import Params, norm_affine_mask


@mitigations.register("noisy_decay")
class NoisyDecay(Mitigation):
    """theta <- theta + step - lr decay theta + N(0, sigma^2) in every update, independent for each weight and bias.

    The literature calls this shrink and perturb, as it does `shrink_perturb` (once, at a task switch) and
    `soft_shrink_perturb` (towards a fresh draw of the network). Two conventions that differ elsewhere: sigma is the
    deviation, not the variance, and it is not multiplied by the learning rate, while the decay is. Norm scales and
    offsets are left alone (the source's networks for this have none).
    """

    reference = "Dohare et al. 2024, Nature 632 (decay 1e-4, sigma 1e-6 to 1e-4 on permuted MNIST)"
    stage = "decay"
    cost = "a standard normal for each parameter in each update"

    decay: float = traced(1e-4, ge=0, help="coefficient of the decay, multiplied by the learning rate")
    sigma: float = traced(1e-5, ge=0, help="standard deviation of the noise")

    def neutral(self) -> Self:
        return type(self)(decay=0.0, sigma=0.0)

    def optimizer(
        self, tx: optax.GradientTransformationExtraArgs, setting: Setting
    ) -> optax.GradientTransformationExtraArgs:
        rate = setting.learning_rate * self.decay

        def after(step: Step, own: tuple[()]) -> tuple[Params, tuple[()]]:
            affine = norm_affine_mask(step.params, setting.network)
            updates = jax.tree.map(
                lambda u, p, xi, kept: u if kept else u - rate * p + self.sigma * xi,
                step.updates,
                step.params,
                normals(step.key, step.params),
                affine,
            )
            return updates, own

        return around(tx, setting, after=after)
