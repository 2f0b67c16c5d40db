"""Sparse initialisation (Elsayed et al. 2024, arXiv:2410.14606)."""

from __future__ import annotations

from dataclasses import replace

from plasticity.config import static
from plasticity.mitigations.base import Mitigation, mitigations
from plasticity.networks.base import Architecture
from plasticity.networks.options import Sparse


@mitigations.register("sparse_init")
class SparseInit(Mitigation):
    """Kernels start uniform on +- 1 / sqrt(fan_in), with a share `sparsity` of each unit's incoming weights zero.

    In all layers and in the place of the network's own initialiser; biases start at zero. The zeros are at random
    places, equally many for each unit (the share, rounded up as in the source, but one weight is left, or small layers
    would pass nothing), and nothing makes up for them. They are where training starts and not kept at zero. Resets draw
    by the same law, as every fresh draw comes from the network's initialiser.

    A stage of its own: it excludes other initialisers and combines with everything else, weight normalisation too.
    """

    reference = "Elsayed et al. 2024, arXiv:2410.14606 (.9)"
    stage = "initialization"

    sparsity: float = static(0.9, ge=0, le=1, positional=True, help="share of a unit's incoming weights that is zero")

    def network(self, architecture: Architecture) -> Architecture:
        return replace(architecture, init=Sparse(self.sparsity))
