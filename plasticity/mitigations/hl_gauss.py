"""Categorical regression against a Gaussian histogram of the target (Imani & White 2018; Farebrother et al. 2024)."""

from __future__ import annotations

from dataclasses import replace

from plasticity.config import static
from plasticity.heads import HLGauss
from plasticity.mitigations._support import check_support, support
from plasticity.mitigations.base import Mitigation, mitigations
from plasticity.networks.base import Architecture


@mitigations.register("hl_gauss")
class HLGaussHead(Mitigation):
    """Predict a distribution over evenly spaced bins, trained by cross-entropy on a Gaussian around the target.

    The Gaussian has a standard deviation of `spread` bins and is integrated over each bin, so that neighbouring bins
    share the error, unlike in `two_hot`. The support is the task's stated target range; give `low` and `high` to choose
    another. Targets beyond it are clipped.
    """

    reference = "Imani & White 2018, arXiv:1806.04613; Farebrother et al. 2024, arXiv:2403.03950 (spread .75)"
    stage = "head"

    bins: int = static(101, ge=2, positional=True, unit="bins", help="size of the categorical output")
    spread: float = static(0.75, gt=0, unit="bins", help="standard deviation of the Gaussian")
    low: float | None = static(None, type=float, unit="target units", help="lowest bin centre; none: the task's")
    high: float | None = static(None, type=float, unit="target units", help="highest bin centre; none: the task's")

    def validate(self) -> None:
        check_support(self)

    def network(self, architecture: Architecture) -> Architecture:
        return replace(architecture, head=HLGauss(self.bins, *support(self, architecture.head), self.spread))
