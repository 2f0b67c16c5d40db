"""Muon as a mitigation: another optimiser in the place of the run's (Jordan et al. 2024)."""

from __future__ import annotations

from plasticity.config import traced
from plasticity.mitigations.base import Mitigation, mitigations
from plasticity.optimizers import optimizers
from plasticity.optimizers.base import OptimizerConfig


@mitigations.register("muon")
class MuonOptimizer(Mitigation):
    """The optimiser is Muon with `scale` times the run's learning rate for matrices, and the run's own for the rest.

    The run's optimiser gives its learning rate and nothing else. Decoupled decay goes with the larger rate, for all
    parameters. See `plasticity describe muon` for the rule.
    """

    reference = "Jordan et al. 2024, kellerjordan.github.io/posts/muon (scale: this suite's default)"
    stage = "base"
    cost = "five products of each kernel with its Gram matrix in each update"

    scale: float = traced(10.0, gt=0, positional=True, help="learning rate of matrices over the run's")

    def base(self, config: OptimizerConfig) -> OptimizerConfig:
        return optimizers.get("muon")(lr=self.scale * config.lr, ratio=1 / self.scale)
