"""Normalize-and-project, NaP (Lyle et al. 2024, arXiv:2407.01800)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from plasticity.config import static, traced
from plasticity.errors import UserError
from plasticity.mitigations.base import Mitigation, Setting, mitigations
from plasticity.mitigations.layers import joint_norm, rescaled, to_norms, weights
from plasticity.mitigations.recycling import Kept
from plasticity.mitigations.wrapping import Step, around, when
from plasticity.network import Network, Params, UnitLayer, get_at, set_at
from plasticity.networks.base import Architecture

#: Activations with a(c z) = c a(z) for c > 0.
HOMOGENEOUS = ("relu", "leaky_relu", "crelu", "aid")


@mitigations.register("nap")
class NaP(Mitigation):
    """Layer norm before each nonlinearity, and every `every` updates W <- W |W0| / |W| for each hidden kernel.

    Hidden layers lose their biases, which stand before a norm. A kernel whose output is normalised can be scaled
    without changing the function, up to the norm's 1e-6, so the projection only keeps the effective learning rate from
    falling as weights grow. The output layer, whose scale matters, is not projected, nor are kernels that write to a
    residual stream; a kernel of norm zero is skipped. |W0| is the norm when the optimiser's state was made.

    affine says what happens to the norms' scales and offsets. free: nothing. decay: scale <- scale - lr decay (scale -
    1) and offset <- offset - lr decay offset in each update, towards their initial values. joint: scale and offset
    together to their initial norm sqrt(units) with each projection, in layers that only normalised layers read; this
    preserves the function for homogeneous activations only, so that others are refused. The paper's decay of the
    learning rate is `lr_schedule`, no part of this member.
    """

    reference = "Lyle et al. 2024, arXiv:2407.01800 (every update; decay: this suite's default)"
    stage = "normalization"
    optimizer_stage = "projection"
    cost = "a layer norm before each nonlinearity, the norms of the kernels at each projection"

    every: int = static(1, ge=1, unit="updates", help="period of the projection")
    affine: str = static("free", choices=("free", "decay", "joint"), help="what happens to norm scales and offsets")
    decay: float = traced(1e-2, ge=0, help="coefficient with affine=decay, multiplied by the learning rate")

    def check(self, others: Sequence[Mitigation]) -> None:
        for other in others:
            if other.stage == "activation":
                self._require_homogeneous(other.name)

    def _require_homogeneous(self, activation: str) -> None:
        if self.affine == "joint" and activation not in HOMOGENEOUS:
            raise UserError(
                f"nap(affine=joint) and {activation} cannot be combined: scaling a norm's scale and offset leaves the "
                f"function as it is only before a homogeneous activation ({', '.join(HOMOGENEOUS)}); "
                "use affine=free or affine=decay"
            )

    def network(self, architecture: Architecture) -> Architecture:
        self._require_homogeneous(architecture.activation)
        return replace(architecture, normalization="layer", bias=False)

    def optimizer(
        self, tx: optax.GradientTransformationExtraArgs, setting: Setting
    ) -> optax.GradientTransformationExtraArgs:
        layers = [layer for layer in setting.network.units if layer.norm_scale is not None]
        if not layers:
            raise UserError("nap needs a network whose hidden layers are normalised, and this one has no norms")
        joint = _between_norms(setting.network) if self.affine == "joint" else []
        rate = setting.learning_rate * self.decay

        def start(params: Params) -> Kept:
            return Kept([joint_norm(params, weights(layer, params)) for layer in layers])

        def after(step: Step, norms: Kept) -> tuple[Params, Kept]:
            def project(params: Params) -> Params:
                params = to_norms(params, [weights(layer, params) for layer in layers], norms.value)
                for layer in joint:
                    params = rescaled(params, _affine(layer), float(layer.units) ** 0.5)
                return params

            updates = step.updates
            if self.affine == "decay":
                for layer in layers:
                    updates = _decayed(updates, step.params, layer, rate)
            return when(step.number % self.every == 0, step.then(project), updates), norms

        return around(tx, setting, after=after, start=start)


def _affine(layer: UnitLayer) -> list[Any]:
    return [path for path in (layer.norm_scale, layer.norm_bias) if path is not None]


def _between_norms(network: Network) -> list[UnitLayer]:
    """Normalised layers that nothing but normalised layers read."""
    normalised = {path for layer in network.units if layer.norm_scale for path in (layer.kernel, *layer.further)}
    return [
        layer
        for layer in network.units
        if layer.norm_scale and layer.outgoing and all(o.kernel in normalised for o in layer.outgoing)
    ]


def _decayed(updates: Params, params: Params, layer: UnitLayer, rate: Any) -> Params:
    for path, target in ((layer.norm_scale, 1.0), (layer.norm_bias, 0.0)):
        if path is not None:
            pull: jax.Array = rate * (get_at(params, path) - jnp.asarray(target))
            updates = set_at(updates, path, get_at(updates, path) - pull)
    return updates
