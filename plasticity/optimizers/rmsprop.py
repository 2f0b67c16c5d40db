"""RMSProp (Tieleman & Hinton 2012), centred or not."""

from __future__ import annotations

import optax

from plasticity.config import static, traced
from plasticity.optimizers.base import OptimizerConfig, optimizers


@optimizers.register("rmsprop")
class RMSProp(OptimizerConfig):
    """nu <- decay nu + (1 - decay) g^2; theta <- theta - lr g / sqrt(nu [- mean(g)^2] + eps). No step count to keep.

    DQN's own optimiser is `rmsprop(2.5e-4, centered=true)`; its eps is .01 / 32^2, inside the root.
    """

    reference = "Tieleman & Hinton 2012; centred: Graves 2013, arXiv:1308.0850"

    lr: float = traced(2.5e-4, gt=0, positional=True, help="learning rate")
    decay: float = traced(0.95, ge=0, le=1, help="of the moments")
    eps: float = traced(9.765625e-6, ge=0, help="added inside the square root")
    centered: bool = static(False, help="divide by the standard deviation instead of the root mean square")

    def build(self, per_entry: bool = False) -> optax.GradientTransformationExtraArgs:
        scale = optax.scale_by_stddev if self.centered else optax.scale_by_rms
        tx = optax.chain(scale(decay=self.decay, eps=self.eps), optax.scale(-self.lr))
        return optax.with_extra_args_support(tx)
