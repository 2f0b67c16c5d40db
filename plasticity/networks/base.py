"""The family of networks and the architecture choices that mitigations may change.

A network config knows its sizes; an `Architecture` holds what mitigations change in it (normalisation and
nonlinearity, output head). `config.build(architecture)` gives the `Network` record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from plasticity.config import Config
from plasticity.heads import Head
from plasticity.network import Network
from plasticity.networks.options import PLAIN, Kernels, Normalization, Sparse
from plasticity.registry import Family


@dataclass(frozen=True)
class Block:
    """kind: `residual`, `simba` or `hyperspherical`, see `plasticity.networks.blocks`. expansion: units of the layer
    inside a block, as a multiple of the stream's width."""

    kind: str
    expansion: int


@dataclass(frozen=True)
class Architecture:
    """head: the output head, which sets the number of outputs of one prediction.

    normalization: what stands before each nonlinearity, by name or with its options.

    activation: a name in `plasticity.activations.NONLINEARITIES`. slope: what that takes beside z (may be traced), the
    negative slope of leaky_relu.

    kernels: how kernels follow from what is trained. init: how they are drawn, None for the network's own choice.

    predictions: how many predictions are made side by side, one an action; the network has `predictions *
    head.outputs` outputs, prediction-major. dueling: a value stream and an advantage stream, each with a last hidden
    layer of its own (Wang et al. 2016, arXiv:1511.06581). noise: initial deviation of factorised Gaussian noise on the
    weights behind the torso, 0 for none (Fortunato et al. 2018, arXiv:1706.10295).

    block: residual blocks in the place of hidden layers, None for none. injectable: room for plasticity injection.

    bias: of the hidden layers of the unit graph; those of streams and outputs always have one.

    auxiliary: outputs of linear heads on the last hidden features: parameters that the forward pass does not use.
    normalized_by: the mitigation whose memory holds mean and deviation of the targets: outputs are multiples of the
    deviation around the mean. Empty for none.
    """

    head: Head
    normalization: str | Normalization = "none"
    activation: str = "relu"
    slope: Any = 0.01
    kernels: Kernels = PLAIN
    init: Sparse | None = None
    predictions: int = 1
    dueling: bool = False
    noise: float = 0.0
    block: Block | None = None
    injectable: bool = False
    bias: bool = True
    auxiliary: int = 0
    normalized_by: str = ""


class NetworkConfig(Config):
    """Base of network configs."""

    name: ClassVar[str]
    reference: ClassVar[str] = ""

    def build(self, architecture: Architecture) -> Network:
        """The network record for these sizes and this architecture."""
        raise TypeError(f"{type(self).__name__} does not build a network")


networks: Family[NetworkConfig] = Family("network", "plasticity.networks")
