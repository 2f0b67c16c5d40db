"""Layer normalisation before every nonlinearity (Ba et al. 2016, arXiv:1607.06450)."""

from __future__ import annotations

from dataclasses import replace

from plasticity.mitigations.base import Mitigation, mitigations
from plasticity.networks.base import Architecture


@mitigations.register("layer_norm")
class LayerNorm(Mitigation):
    """Layer norm on the preactivations of each hidden layer, with learned scale and offset.

    z <- gamma (z - mean(z)) / sqrt(var(z) + 1e-6) + beta, mean and variance over the layer's units. The paper does not
    say whether scale and offset are learned; here they are, and penalties leave them alone.
    """

    reference = "Lyle et al. 2024, arXiv:2402.18762"
    stage = "normalization"

    def network(self, architecture: Architecture) -> Architecture:
        return replace(architecture, normalization="layer")
