"""Outputs in target units from a network that is trained on normalised targets (van Hasselt et al. 2016,
arXiv:1602.07714).

With mean m and deviation s of the targets the outputs are s n(x) + m, n the network without this. Predictions, scores,
errors and bootstrapped targets then need no notion of the normalisation. The gradient that flows into n is multiplied
by `gain`: with gain 1/s^2 half the squared error of the outputs trains n as half the squared error of n against the
normalised targets (y - m) / s does, while the loss that is reported stays in target units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax

from plasticity.errors import UserError
from plasticity.network import Network


class TargetUnits(NamedTuple):
    """Scalars, float32. mean, deviation: of the targets; gain: factor on the gradient behind the outputs."""

    mean: jax.Array
    deviation: jax.Array
    gain: jax.Array


@jax.custom_jvp
def scaled_gradient(x: jax.Array, gain: jax.Array) -> jax.Array:
    """`x` itself; derivatives are multiplied by `gain`, which has none of its own."""
    return x


@scaled_gradient.defjvp
def _scaled_gradient_jvp(primals, tangents):
    return primals[0], primals[1] * tangents[0]


def in_target_units(network: Network, member: str) -> Network:
    """The network with outputs in target units, by `variables["memory"][member].units`, a `TargetUnits`."""

    def apply(variables: Mapping[str, Any], x: jax.Array, noise: jax.Array | None = None, train: bool = False):
        if member not in variables.get("memory", {}):
            raise UserError(
                f"{member} keeps the scale of the outputs in its memory: pass all variables that "
                f"`compose.initial` made, not only {', '.join(sorted(variables))}"
            )
        units = jax.lax.stop_gradient(variables["memory"][member].units)
        outputs, activations, new_state = network.apply(variables, x, noise, train)
        return units.deviation * scaled_gradient(outputs, units.gain) + units.mean, activations, new_state

    return replace(network, apply=apply)


def keeping_units(fresh: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """Fresh variables with the old scale of the outputs, if there is one: it is the targets', not a network's."""
    memories = fresh.get("memory", {})
    kept = {
        name: old["memory"][name]
        for name, memory in memories.items()
        if isinstance(getattr(memory, "units", None), TargetUnits)
    }
    return {**fresh, "memory": {**memories, **kept}} if kept else dict(fresh)
