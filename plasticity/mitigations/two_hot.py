"""Categorical regression by a two-hot code of the target (Schrittwieser et al. 2020; Lyle et al. 2024)."""

from __future__ import annotations

from dataclasses import replace

from plasticity.config import static
from plasticity.heads import TwoHot
from plasticity.mitigations._support import check_support, support
from plasticity.mitigations.base import Mitigation, mitigations
from plasticity.networks.base import Architecture


@mitigations.register("two_hot")
class TwoHotHead(Mitigation):
    """Predict a distribution over evenly spaced bins, trained by cross-entropy on the two-hot code of the target.

    The support is the task's stated target range, known beforehand; give `low` and `high` to choose another. Targets
    beyond it are clipped. The paper states neither bins nor support; 101 bins are this suite's default.
    """

    reference = "Lyle et al. 2024, arXiv:2402.18762; code of Schrittwieser et al. 2020, arXiv:1911.08265"
    stage = "head"

    bins: int = static(101, ge=2, positional=True, unit="bins", help="size of the categorical output")
    low: float | None = static(None, type=float, unit="target units", help="lowest bin centre; none: the task's")
    high: float | None = static(None, type=float, unit="target units", help="highest bin centre; none: the task's")

    def validate(self) -> None:
        check_support(self)

    def network(self, architecture: Architecture) -> Architecture:
        return replace(architecture, head=TwoHot(self.bins, *support(self, architecture.head)))
