"""Activation by interval-wise dropout (Park et al. 2025, arXiv:2502.01342)."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

from plasticity.config import traced
from plasticity.mitigations.base import Mitigation, mitigations
from plasticity.networks.base import Architecture


@mitigations.register("aid")
class AID(Mitigation):
    """In training relu(z), or with probability `drop` -relu(-z), drawn for each element; otherwise their mean.

    The mean is (1 - drop) relu(z) - drop relu(-z), a leaky ReLU with both slopes below 1; nothing is rescaled. `drop`
    is one minus the source's p, so that 0 is ReLU. At drop = .5 the mean is linear in z. The draws come from the key of
    a training pass; passes without one (evaluation, diagnostics, acting, the targets of Q-learning) have the mean, and
    all passes of one update the same draws. .1 is this suite's default; the source sweeps p.
    """

    reference = "Park et al. 2025, arXiv:2502.01342 (with p = 1 - drop)"
    cost = "a random number for each element of each layer"
    stage = "activation"

    drop: float = traced(0.1, ge=0, le=1, positional=True, help="probability of the negative branch")

    def neutral(self) -> Self:
        return type(self)(drop=0.0)

    def network(self, architecture: Architecture) -> Architecture:
        return replace(architecture, activation=self.name, slope=self.drop)
