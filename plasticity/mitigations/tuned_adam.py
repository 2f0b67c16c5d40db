"""Hyperparameters of Adam that forget fast, as mitigations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from plasticity.config import traced
from plasticity.errors import UserError
from plasticity.mitigations.base import Mitigation, mitigations
from plasticity.optimizers.adam import Adam
from plasticity.optimizers.base import OptimizerConfig


class _Adam(Mitigation):
    stage = "base"

    def _changed(self, config: OptimizerConfig, **values: Any) -> OptimizerConfig:
        if not isinstance(config, Adam):
            raise UserError(f"{self.name} changes hyperparameters of adam, and the optimiser is {config.name}")
        return replace(config, **values)  # pyrefly: ignore


@mitigations.register("tuned_adam")
class TunedAdam(_Adam):
    """Adam with b2 = 0.9, eps = 1e-9 outside and eps_root = 1e-3 inside the root; its learning rate and b1 stay.

    The second moment follows a sudden growth of gradients within ten updates, and the large eps_root keeps the step
    in proportion to the gradient where gradients are small.
    """

    reference = "Lyle et al. 2023, arXiv:2303.01486 (b2 .9, eps 1e-9, eps_root 1e-3)"

    b2: float = traced(0.9, ge=0, le=1, help="decay of the second moment")
    eps: float = traced(1e-9, ge=0, help="added outside the square root")
    eps_root: float = traced(1e-3, ge=0, help="added inside the square root")

    def base(self, config: OptimizerConfig) -> OptimizerConfig:
        return self._changed(config, b2=self.b2, eps=self.eps, eps_root=self.eps_root)


@mitigations.register("equal_betas")
class EqualBetas(_Adam):
    """Adam with b1 = b2 = beta: then |m| <= sqrt(v), and no update exceeds the learning rate, however gradients change.

    With b1 < b2 the first moment follows a sudden growth of gradients faster than the second does.
    """

    reference = "Dohare et al. 2024, Nature 632 (.99 on non-stationary Ant)"

    beta: float = traced(0.99, ge=0, le=1, positional=True, help="decay of both moments")

    def base(self, config: OptimizerConfig) -> OptimizerConfig:
        return self._changed(config, b1=self.beta, b2=self.beta)
