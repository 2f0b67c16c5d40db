"""UPGD: utility-based perturbed gradient descent (Elsayed & Mahmood 2024, arXiv:2404.00781)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity.config import static, traced
from plasticity.mitigations.base import Mitigation, Setting, mitigations
from plasticity.mitigations.wrapping import Step, around, normals
from plasticity.network import Params


class Utility(NamedTuple):
    """average: of -g theta by entry; mass: 1 - beta^t by entry, its bias correction. Both shaped as the parameters."""

    average: Params
    mass: Params


@mitigations.register("upgd")
class UPGD(Mitigation):
    """Useful weights are protected from change, the others are perturbed.

    u <- beta u + (1 - beta) (-g theta), u_hat = u / (1 - beta^t), s = sigmoid(u_hat / m) by entry, m the largest u_hat
    of all parameters; the step d of the optimiser becomes (d - lr xi) (1 - s), xi ~ N(0, sigma^2) for each entry. With
    plain SGD that is the published theta - lr (g + xi) (1 - s), with Adam it is AdaUPGD (whose code has a factor 2 on
    the learning rate: double it to compare). The published decay, which is not gated, is `weight_decay` beside this.

    Deviations. The published m is the largest u, not corrected for its start: at t = 1 the ratio is 1 / (1 - beta)
    times too large and every gate is open or shut; `maximum=published` has that. Where no utility is positive, m <= 0
    turns the order of utilities around; by default the ratio is to |m| then, so that what is least useful is least
    protected. All parameters take part, norm scales and offsets too. Counts are by entry, so that a reset weight starts
    as at t = 1. g is the gradient as it comes in, penalties included.
    """

    reference = "Elsayed & Mahmood 2024, arXiv:2404.00781 (sigma 1e-3, beta .999)"
    # Inside decay, which it must not gate.
    stage = "gradient"
    cost = "two averages and a standard normal for each parameter in each update"

    sigma: float = traced(1e-3, ge=0, positional=True, help="standard deviation of the perturbation, before the lr")
    beta: float = traced(0.999, ge=0, le=1, help="decay of the average utility")
    maximum: str = static("corrected", choices=("corrected", "published"), help="what utilities are compared with")

    def optimizer(
        self, tx: optax.GradientTransformationExtraArgs, setting: Setting
    ) -> optax.GradientTransformationExtraArgs:
        def start(params: Params) -> Utility:
            return Utility(jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params))

        def after(step: Step, old: Utility) -> tuple[Params, Utility]:
            def average(old: jax.Array, new: Any) -> jax.Array:
                return self.beta * old + (1 - self.beta) * new

            utility = Utility(
                jax.tree.map(lambda u, g, p: average(u, -g * p), old.average, step.gradient, step.params),
                jax.tree.map(lambda m: average(m, 1.0), old.mass),
            )
            gates = self.gates(utility)
            noise = normals(step.key, step.params)
            scale = setting.learning_rate * self.sigma
            return jax.tree.map(lambda d, xi, gate: (d - scale * xi) * gate, step.updates, noise, gates), utility

        return around(tx, setting, after=after, start=start)

    def gates(self, utility: Utility) -> Params:
        """1 - s of every entry."""
        corrected = jax.tree.map(jnp.divide, utility.average, utility.mass)
        published = self.maximum == "published"
        compared = utility.average if published else corrected
        top = jnp.max(jnp.stack([jnp.max(u) for u in jax.tree.leaves(compared)]))
        scale = top if published else jnp.abs(top)
        # At a maximum of exactly zero the ratio is taken as zero: half a step everywhere.
        usable = scale != 0
        return jax.tree.map(
            lambda u: 1 - jax.nn.sigmoid(jnp.where(usable, u / jnp.where(usable, scale, 1.0), 0.0)), corrected
        )
