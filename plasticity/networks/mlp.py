"""Multilayer perceptron: `depth` hidden layers of `width` units, normalisation before each nonlinearity.

Layer names are `hidden_0 ... hidden_{depth-1}` and `output`. Kernels are drawn from LeCun's normal
(variance 1/fan_in), biases are zero, so the fresh draw of a reset is the layer's own initialiser.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import jax
from flax import linen as nn

from plasticity.activations import NONLINEARITIES
from plasticity.config import static
from plasticity.network import Activation, Network, Outgoing, UnitLayer
from plasticity.networks.base import Architecture, NetworkConfig, networks


class _Module(nn.Module):
    width: int
    depth: int
    outputs: int
    normalization: str
    activation: str

    @nn.compact
    def __call__(self, x: jax.Array, slope: Any) -> tuple[jax.Array, Mapping[str, Activation]]:
        nonlinearity = NONLINEARITIES[self.activation]
        activations: dict[str, Activation] = {}
        x = x.reshape(x.shape[0], -1)
        for i in range(self.depth):
            z = nn.Dense(self.width, name=f"hidden_{i}")(x)
            if self.normalization == "layer":
                z = nn.LayerNorm(name=f"norm_{i}")(z)
            x = nonlinearity.apply(z, slope)
            activations[f"hidden_{i}"] = Activation(pre=z, post=x)
        return nn.Dense(self.outputs, name="output")(x), activations


@networks.register("mlp")
class MLP(NetworkConfig):
    """Multilayer perceptron on flattened inputs."""

    width: int = static(128, ge=1, positional=True, unit="units", help="hidden units a layer")
    depth: int = static(2, ge=1, positional=True, unit="layers", help="hidden layers")

    def build(self, architecture: Architecture) -> Network:
        module = _Module(
            self.width, self.depth, architecture.head.outputs, architecture.normalization, architecture.activation
        )
        slope = architecture.slope

        def init(key: jax.Array, x: jax.Array) -> dict[str, Any]:
            return dict(module.init(key, x, slope))

        def apply(variables: Mapping[str, Any], x: jax.Array):
            output, activations = cast("tuple[jax.Array, Mapping[str, Activation]]", module.apply(variables, x, slope))
            return output, activations, {}

        return Network(
            init,
            apply,
            self._units(architecture),
            activation=architecture.activation,
            output_kernel=("output", "kernel"),
        )

    def _units(self, architecture: Architecture) -> tuple[UnitLayer, ...]:
        repeat = NONLINEARITIES[architecture.activation].width
        normalized = architecture.normalization == "layer"
        layers = []
        for i in range(self.depth):
            following = f"hidden_{i + 1}" if i + 1 < self.depth else "output"
            layers.append(
                UnitLayer(
                    name=f"hidden_{i}",
                    units=self.width,
                    kernel=(f"hidden_{i}", "kernel"),
                    bias=(f"hidden_{i}", "bias"),
                    norm_scale=(f"norm_{i}", "scale") if normalized else None,
                    norm_bias=(f"norm_{i}", "bias") if normalized else None,
                    outgoing=(Outgoing((following, "kernel"), repeat),),
                )
            )
        return tuple(layers)
