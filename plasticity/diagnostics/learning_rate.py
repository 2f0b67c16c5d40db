"""Effective learning rates: the step size that matters to a layer whose scale does not.

In a layer followed by normalisation, f(cW) = f(W), so its function depends on W / ||W|| only, and a step of
size lr in W moves that direction by

    effective_lr_sgd   lr / ||W||_2^2     plain gradient steps: the gradient itself shrinks as 1 / ||W||
    effective_lr_adam  lr / ||W||_2       steps whose size does not depend on the gradient's scale (Adam, RMSProp)

Range 0 to infinity; infinite for W = 0, but 0 if the learning rate is 0 too. W are the kernels: all leaves of
two or more dimensions of the layer. A layer without a kernel (a normalisation) has no value. The network's
value treats all kernels as one vector. For a layer that is not followed by normalisation the number is defined
but does not have this meaning.

References: Lyle et al. 2024 (arXiv:2407.01800); van Laarhoven 2017 (arXiv:1706.05350). The name collides: elsewhere
||g|| / ||theta||, with no learning rate in it, is logged as "effective learning rate".
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Array

from plasticity.diagnostics.arrays import Scalar, safe_ratio
from plasticity.diagnostics.base import Observation, Reading, diagnostic
from plasticity.diagnostics.norms import by_layer, norm


def effective_lr(learning_rate: Any, kernels: Any, power: int) -> Scalar:
    """learning_rate / norm(kernels) ** power; 0 / 0 is 0. Divided step by step, so that no square overflows."""
    rate: Any = learning_rate
    for _ in range(power):
        rate = safe_ratio(rate, norm(kernels))
    return rate


def _read(seen: Observation, power: int) -> Reading:
    layers: dict[str, list[Array]] = {}
    for name, leaves in by_layer(seen.params).items():
        kernels = [leaf for leaf in leaves if leaf.ndim >= 2]
        if kernels:
            layers[name] = kernels
    values = {name: effective_lr(seen.learning_rate, kernels, power) for name, kernels in layers.items()}
    return Reading(effective_lr(seen.learning_rate, layers, power), values)


@diagnostic(
    name="effective_lr_sgd",
    unit="step size",
    range=(0, float("inf")),
    needs=("params", "learning_rate"),
    cost="one pass over the parameters",
    reference="van Laarhoven 2017, arXiv:1706.05350",
)
def _effective_lr_sgd(seen: Observation) -> Reading:
    """Learning rate over the squared L2 norm of the kernels; for scale-invariant layers under SGD."""
    return _read(seen, 2)


@diagnostic(
    name="effective_lr_adam",
    unit="step size",
    range=(0, float("inf")),
    needs=("params", "learning_rate"),
    cost="one pass over the parameters",
    reference="Lyle et al. 2024, arXiv:2407.01800",
)
def _effective_lr_adam(seen: Observation) -> Reading:
    """Learning rate over the L2 norm of the kernels; for scale-invariant layers under Adam-like optimisers."""
    return _read(seen, 1)
