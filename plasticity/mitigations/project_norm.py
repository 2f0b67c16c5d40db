"""Projection of hidden kernels to their initial norm: the projection of NaP alone (Lyle et al. 2024)."""

from __future__ import annotations

import optax

from plasticity.config import static
from plasticity.mitigations.base import Mitigation, Setting, mitigations
from plasticity.mitigations.layers import joint_norm, to_norms, weights
from plasticity.mitigations.recycling import Kept
from plasticity.mitigations.wrapping import Step, around, when
from plasticity.network import Params


@mitigations.register("project_norm")
class ProjectNorm(Mitigation):
    """Every `every` updates W <- W |W0| / |W| for each hidden kernel, Frobenius norms, W0 its initial value.

    Without norm layers this is not NaP (see `nap`): it changes the function of the network, as biases are not scaled.
    Biases, norm scales and offsets and the output layer are left alone; a kernel of norm zero is skipped. |W0| is what
    the kernel had when the optimiser's state was made: an event that renews that state sets it anew. A reset of units
    changes the norm until the next projection. The kernel of a noisy layer is scaled together with its deviations.
    """

    reference = "Lyle et al. 2024, arXiv:2407.01800 (the projection of NaP, without its norms)"
    stage = "projection"

    every: int = static(1, ge=1, positional=True, unit="updates", help="period of the projection")

    def optimizer(
        self, tx: optax.GradientTransformationExtraArgs, setting: Setting
    ) -> optax.GradientTransformationExtraArgs:
        layers = setting.network.units

        def start(params: Params) -> Kept:
            return Kept([joint_norm(params, weights(layer, params)) for layer in layers])

        def after(step: Step, norms: Kept) -> tuple[Params, Kept]:
            groups = [weights(layer, step.params) for layer in layers]
            project = step.then(lambda params: to_norms(params, groups, norms.value))
            return when(step.number % self.every == 0, project, step.updates), norms

        return around(tx, setting, after=after, start=start)
