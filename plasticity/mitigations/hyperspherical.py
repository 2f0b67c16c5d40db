"""Hyperspherical normalisation of features and kernels (SimbaV2; Lee et al. 2025, arXiv:2502.15280)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from plasticity.config import static
from plasticity.errors import UserError
from plasticity.mitigations.base import Mitigation, Setting, mitigations
from plasticity.mitigations.layers import under
from plasticity.mitigations.wrapping import Step, around
from plasticity.network import Network, Params
from plasticity.networks.base import Architecture, Block


def with_unit_columns(params: Params, network: Network) -> Params:
    """Every kernel `[in, out]` with columns scaled to Euclidean norm 1; a column of zeros stays."""

    def project(p: jax.Array, spared: bool) -> jax.Array:
        if p.ndim != 2 or spared:
            return p
        norms = jnp.linalg.norm(p, axis=0)
        return p / jnp.where(norms > 0, norms, 1.0)

    return jax.tree.map(project, params, under(params, network.auxiliary))


@mitigations.register("hyperspherical")
class Hyperspherical(Mitigation):
    """Features of norm 1, kernels without bias whose columns are scaled to norm 1 after each update. Only for `mlp`.

    With n(v) = v / |v|: x <- n([input, 3]); h <- n(s * W x); in each of `depth` blocks
    h <- n(h + a * (n(V relu(s * U h)) - h)); output Q (s * P h) + b. Trained are kernels, the scalers s and a of each
    unit, and b. `plasticity.networks.sphere` has the scalers' start, and says which parts of the source are left out:
    running statistics of observations, bounds on rewards, the categorical head (compose `two_hot`), schedule and
    draws. The optimiser's momentum is not projected (as in the source). Scalers are no kernels: they are not projected.
    A unit that is reset gets a fresh column and scaler; the zeros in outgoing kernels shorten their columns until the
    next update. There is no zero strength: it is another network.
    """

    reference = "Lee et al. 2025, arXiv:2502.15280 (expansion 4, shift 3)"
    stage = "block"
    optimizer_stage = "projection"
    cost = "kernels of 2 x 4 width^2 a block, in the place of width^2 a layer; norms of all columns in each update"

    expansion: int = static(4, ge=1, positional=True, help="units inside a block, as a multiple of the stream's width")

    def check(self, others: Sequence[Mitigation]) -> None:
        for other in others:
            if other.stage in ("initialization", "kernel"):
                why = "the columns of kernels have norm 1, drawn and kept so"
                raise UserError(f"{self.name} and {other.name} cannot be combined: {why}")

    def network(self, architecture: Architecture) -> Architecture:
        return replace(architecture, block=Block(self.name, self.expansion))

    def optimizer(
        self, tx: optax.GradientTransformationExtraArgs, setting: Setting
    ) -> optax.GradientTransformationExtraArgs:
        def after(step: Step, own: Any) -> tuple[Params, Any]:
            return step.then(lambda params: with_unit_columns(params, setting.network))(step.updates), own

        return around(tx, setting, after=after)
