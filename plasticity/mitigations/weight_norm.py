"""Weight normalisation (Salimans & Kingma 2016, arXiv:1602.07868)."""

from __future__ import annotations

from dataclasses import replace

from plasticity.mitigations.base import Mitigation, mitigations
from plasticity.networks.base import Architecture
from plasticity.networks.options import Kernels


@mitigations.register("weight_norm")
class WeightNorm(Mitigation):
    """Every kernel is g v / |v|, for each unit: its length g and its direction v are trained on their own.

    v is the parameter `kernel`, drawn as without this; g is `gain`, which starts as |v|, so that the network starts as
    the same function (the source then rescales by a batch of data; that is not done). Output layers take part; biases
    and the deviations of noisy layers do not. The gradient of v is orthogonal to v, so |v| can only grow under plain
    gradient steps, and v learns at a rate that falls with |v|: decay and penalties, which treat g and v as weights,
    act on that rate through v.

    A reset of a unit redraws v, and g as its length. It also empties rows of v in the next layers, which makes these
    shorter: unlike without weight normalisation, recycling a dead unit scales what its successors get from the
    others, by |v| before over |v| after.
    """

    reference = "Salimans & Kingma 2016, arXiv:1602.07868"
    cost = "a norm of each kernel"
    stage = "kernel"

    def network(self, architecture: Architecture) -> Architecture:
        return replace(architecture, kernels=Kernels("weight_norm"))
