"""Spectral normalisation (Miyato et al. 2018, arXiv:1802.05957)."""

from __future__ import annotations

from dataclasses import replace

from plasticity.config import static
from plasticity.mitigations.base import Mitigation, mitigations
from plasticity.networks.base import Architecture
from plasticity.networks.options import PLACES, Kernels


@mitigations.register("spectral_norm")
class SpectralNorm(Mitigation):
    """Every kernel is W / sigma(W), its largest singular value estimated by one step of a power iteration an update.

    A convolution's kernel is a matrix of all its inputs by channels, as in the source. The vector of the iteration is
    kept beside the parameters; the gradient passes through W and sigma, not through the vector. Biases are left alone.
    `layers`: all, hidden (all but outputs: with outputs too a network of ReLUs has a slope of at most 1), last_hidden,
    the one before the output (one layer alone is also what Gogianu et al. normalise in DQN), or first_dense, the first
    dense hidden layer, as Lyle et al. have it in their comparison of interventions.

    The function does not depend on the length of W, so that a growing W learns more slowly. Resets of units draw W and
    leave the vector, which follows; emptying rows of the next layer changes its sigma, so that recycling a dead unit
    scales what that layer's units get from the others.
    """

    reference = (
        "Miyato et al. 2018, arXiv:1802.05957; in DQN Gogianu et al. 2021, arXiv:2105.05246; "
        "against loss of plasticity Lyle et al. 2023, arXiv:2303.01486"
    )
    cost = "two products of each kernel with a vector"
    stage = "kernel"

    layers: str = static("all", choices=tuple(PLACES), positional=True, help="which kernels are normalised")

    def network(self, architecture: Architecture) -> Architecture:
        return replace(architecture, kernels=Kernels("spectral_norm", self.layers))
