"""Sharpness-aware minimisation: the gradient at the worst point nearby."""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp
import optax

from plasticity.config import traced
from plasticity.mitigations.base import GradFn, Mitigation, mitigations
from plasticity.network import Params


@mitigations.register("sam")
class SAM(Mitigation):
    """The gradient of loss and penalties at theta + rho g / |g|, g the gradient at theta, both on the same batch.

    One norm over all parameters, biases and affine parameters of normalisations included. The second gradient is not
    differentiated through the first. What is reported and what else is measured (loss, activations, running statistics
    of batch normalisation) is that of the pass at theta. A zero gradient stays where it is.
    """

    reference = "Foret et al. 2021, arXiv:2010.01412 (rho .05; .1 in studies of plasticity)"
    cost = "a second forward and backward pass: an update costs twice as much"
    stage = "gradient"

    rho: float = traced(0.05, ge=0, positional=True, help="length of the step to the worst point")

    def neutral(self) -> Self:
        return type(self)(rho=0.0)

    def gradient(self, grad_fn: GradFn) -> GradFn:
        def perturbed(params: Params) -> tuple[Params, Any]:
            gradient, found = grad_fn(params)
            norm = optax.tree.norm(gradient)
            length = self.rho / jnp.where(norm > 0, norm, 1.0)
            worst = jax.tree.map(lambda p, g: p + length * g, params, gradient)
            return grad_fn(worst)[0], found

        return perturbed
