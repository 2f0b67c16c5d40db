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


@jax.custom_vjp
def _matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`x @ kernel` for `[batch, in]` and `[in, out]`.

    JAX derives the gradient of the kernel as the transpose of `[out, in]`, which XLA on a CPU leaves to the optimiser
    to read column by column. Stated directly it has the layout of the kernel; benchmarks/README.md has what it saves.
    """
    return x @ kernel


def _matmul_forward(x: jax.Array, kernel: jax.Array):
    return x @ kernel, (x, kernel)


def _matmul_backward(saved: tuple[jax.Array, jax.Array], grad: jax.Array):
    x, kernel = saved
    return grad @ kernel.T, jax.lax.dot_general(x, grad, (((0,), (0,)), ((), ())))


_matmul.defvjp(_matmul_forward, _matmul_backward)


def _dot_general(x: jax.Array, kernel: jax.Array, *_: Any, **__: Any) -> jax.Array:
    """What `nn.Dense` calls; its dimension numbers are always those of `_matmul` here, as `x` is flattened."""
    return _matmul(x, kernel)


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
            z = nn.Dense(self.width, name=f"hidden_{i}", dot_general=_dot_general)(x)
            if self.normalization == "layer":
                z = nn.LayerNorm(name=f"norm_{i}")(z)
            x = nonlinearity.apply(z, slope)
            activations[f"hidden_{i}"] = Activation(pre=z, post=x)
        return nn.Dense(self.outputs, name="output", dot_general=_dot_general)(x), activations


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
