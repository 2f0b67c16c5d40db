"""PopArt: targets normalised by running statistics, outputs preserved when the statistics move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from plasticity.config import static, traced
from plasticity.errors import UserError
from plasticity.heads import Regression
from plasticity.mitigations.base import Context, Learner, Mitigation, mitigations
from plasticity.mitigations.compose import remembering
from plasticity.network import Network, Params, Path, get_at, set_at
from plasticity.networks.base import Architecture
from plasticity.networks.target_units import TargetUnits


class Statistics(NamedTuple):
    """units: by which outputs are brought to target units. variance: of the targets, before the floor. mass:
    1 - (1 - beta)^t after t batches. Scalars, float32."""

    units: TargetUnits
    variance: jax.Array
    mass: jax.Array


def output_paths(params: Params, network: Network) -> tuple[Path, Path]:
    """What the output layer's weights are proportional to (its kernel, or its gains under weight normalisation), and
    its bias. Raises `UserError` if there is no such bias."""
    kernel, where = network.output_kernel, network.output_kernel[:-1]
    try:
        layer = get_at(params, where)
    except KeyError:
        layer = {}
    if "bias" not in layer:
        path = "/".join((*where, "bias"))
        raise UserError(f"popart needs an output layer with a bias: there is no parameter {path}")
    return (*where, "gain") if "gain" in layer else kernel, (*where, "bias")


@mitigations.register("popart")
class PopArt(Mitigation):
    """Train n(x) on (y - m) / s, m and s^2 the running mean and variance of the targets; predict s n(x) + m.

    After each update, with the batch's mean and mean square of the targets and step b:
    m <- (1 - b) m + b mean(y), v <- (1 - b) v + b mean(y^2), s^2 = v - m^2 (kept as a variance, by an equal recursion
    that does not cancel), b = beta / (1 - (1 - beta)^t) for batch t: a plain average at first. The output layer is
    rescaled, W <- W s_old / s_new, bias <- (bias s_old + m_old - m_new) / s_new, so that predictions stay the
    same (`preserve=false`: it is not, plain running normalisation).

    Deviations. Statistics move after the update, not before it: the first batch only sets them, nothing is learned
    from it, and the output layer is not rescaled for it. The reported loss, half the squared error, is in target units;
    its gradient is that of the normalised targets. The optimiser's moments of the output layer stay, as in the source.
    Other biases, and norm scales and offsets, are not touched. beta = 0 is absence. The scale stands outside the
    output layer, so a projection of that layer undoes the rescaling. beta is this suite's default.
    """

    reference = "van Hasselt et al. 2016, arXiv:1602.07714"
    stage = "head"
    needs = ("targets",)

    beta: float = traced(0.01, ge=0, le=1, positional=True, help="step of the running statistics")
    preserve: bool = static(True, help="rescale the output layer so that predictions stay")
    smallest: float = traced(1e-4, gt=0, unit="target units", help="floor of the deviation")

    def neutral(self) -> Self:
        return type(self)(beta=0.0, preserve=self.preserve, smallest=self.smallest)

    def network(self, architecture: Architecture) -> Architecture:
        if not isinstance(architecture.head, Regression):
            raise UserError(f"{self.name} needs a regression task: it normalises targets that are numbers")
        if architecture.predictions > 1:
            raise UserError(f"{self.name} needs one prediction an example, got {architecture.predictions}")
        if self.preserve and architecture.kernels.at("output") == "spectral_norm":
            raise UserError(
                f"{self.name} and spectral_norm cannot be combined: an output layer that is divided by its own norm "
                "cannot be rescaled; use spectral_norm(layers=hidden) or popart(preserve=false)"
            )
        return replace(architecture, normalized_by=self.name)

    def memory(self, variables: Mapping[str, Any], network: Network) -> Statistics:
        output_paths(variables["params"], network)
        # No gradient before the first statistics; with beta = 0 there will be none, and nothing is normalised.
        gain = jnp.where(jnp.asarray(self.beta) > 0, 0.0, 1.0)
        return Statistics(TargetUnits(jnp.zeros(()), jnp.ones(()), gain), jnp.ones(()), jnp.zeros(()))

    def moved(self, old: Statistics, y: jax.Array) -> Statistics:
        """The statistics after another batch of targets."""
        mass = (1 - self.beta) * old.mass + self.beta
        step = jnp.where(mass > 0, self.beta / jnp.where(mass > 0, mass, 1.0), 0.0)
        change = jnp.mean(y) - old.units.mean
        mean = old.units.mean + step * change
        variance = (1 - step) * (old.variance + step * jnp.square(change)) + step * jnp.var(y)
        deviation = jnp.maximum(jnp.sqrt(variance), self.smallest)
        gain = jnp.where(mass > 0, 1 / jnp.square(deviation), old.units.gain)
        return Statistics(TargetUnits(mean, deviation, gain), variance, mass)

    def after_update(self, learner: Learner, context: Context) -> Learner:
        old = context.need("memory", self.name)
        new = self.moved(old, jnp.asarray(context.need("targets", self.name), jnp.float32))
        learner = remembering(learner, self.name, new)
        if not self.preserve:
            return learner
        size, bias = output_paths(learner.variables["params"], context.network)
        first = old.mass == 0
        scale = jnp.where(first, 1.0, old.units.deviation / new.units.deviation)
        shift = jnp.where(first, 0.0, (old.units.mean - new.units.mean) / new.units.deviation)

        def rescaled(params: Params, shift: Any) -> Params:
            params = set_at(params, size, get_at(params, size) * scale)
            return set_at(params, bias, get_at(params, bias) * scale + shift)

        variables = {**learner.variables, "params": rescaled(learner.variables["params"], shift)}
        if "frozen" in variables:  # of plasticity injection: their difference is added to the output
            frozen = dict(variables["frozen"])
            for name in ("old", "anchor"):
                frozen[name] = {**frozen[name], "params": rescaled(frozen[name]["params"], 0.0)}
            variables["frozen"] = frozen
        return learner._replace(variables=variables)
