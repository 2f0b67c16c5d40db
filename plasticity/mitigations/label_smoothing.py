"""Label smoothing (Szegedy et al. 2016, arXiv:1512.00567)."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

from plasticity.config import traced
from plasticity.errors import UserError
from plasticity.heads import HLGauss, Softmax, TwoHot
from plasticity.mitigations.base import Mitigation, mitigations
from plasticity.networks.base import Architecture


@mitigations.register("label_smoothing")
class LabelSmoothing(Mitigation):
    """Train on (1 - strength) code + strength / K, over K classes, or over the K bins of two_hot and hl_gauss.

    Logits stay bounded, where a hard target asks for infinite ones. Reported losses are those that are trained on; with
    bins they have the smoothed code's entropy taken off, so that a perfect fit is 0. A prediction is the mean over
    bins, as without smoothing, so a perfect fit predicts (1 - strength) y + strength times the support's middle: with
    bootstrapped targets that shrinks values again and again. A linear head has nothing to smooth, and a head with
    atoms (C51) has distributions for targets: both are refused.
    """

    reference = "Szegedy et al. 2016, arXiv:1512.00567 (.1)"
    stage = "targets"

    strength: float = traced(0.1, ge=0, le=1, positional=True, help="share of the target spread evenly")

    def neutral(self) -> Self:
        return type(self)(strength=0.0)

    def network(self, architecture: Architecture) -> Architecture:
        head = architecture.head
        if not isinstance(head, Softmax | TwoHot | HLGauss):
            raise UserError(
                f"label_smoothing needs classes, or a regression with two_hot or hl_gauss; the head is "
                f"{type(head).__name__}"
            )
        return replace(architecture, head=replace(head, smoothing=self.strength))
