"""Muon (Jordan et al. 2024): momentum of matrices, orthogonalised; Adam for everything else."""

from __future__ import annotations

from typing import Any

import jax
import optax

from plasticity.config import static, traced
from plasticity.network import TABLE
from plasticity.optimizers.adam import scale_by_adam_per_entry
from plasticity.optimizers.base import OptimizerConfig, optimizers

#: A convolution's kernel `[height, width, in, out]` as the matrix `[height * width * in, out]`.
FILTERS = optax.contrib.MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)


def _dimensions(params: Any) -> Any:
    return jax.tree.map(lambda p: FILTERS if p.ndim == 4 else optax.contrib.MuonDimensionNumbers(), params)


def _labels(params: Any) -> Any:
    def label(path: Any, p: Any) -> str:
        table = bool(path) and getattr(path[-1], "key", None) == TABLE
        return "matrix" if p.ndim in (2, 4) and not table else "other"

    return jax.tree_util.tree_map_with_path(label, params)


@optimizers.register("muon")
class Muon(OptimizerConfig):
    """W <- W - lr sqrt(max(1, out/in)) O(M), O(M) close to U V^T of M = U S V^T, by `iterations` of Newton-Schulz.

    M is Nesterov momentum, corrected for its start. `optax.contrib.muon` computes it, for dense kernels and for
    convolutions as matrices of filters; the output layer's kernel counts as a matrix too (the source gives it to Adam).
    All other parameters, tables of tokens and places among them, are Adam's, with b1 = .9, b2 = .999 and the learning
    rate `ratio` lr.

    Momentum is by entry, so units can be reset; its start is corrected by a count that all entries share, which leaves
    reset entries too small in M for about 1 / (1 - beta) updates, not too large. Adam's counts are by entry on request.
    """

    reference = "Jordan et al. 2024, kellerjordan.github.io/posts/muon (lr .02, beta .95, 5 iterations)"

    lr: float = traced(0.02, gt=0, positional=True, help="learning rate of matrices")
    ratio: float = traced(0.05, gt=0, help="learning rate of all other parameters, over lr")
    beta: float = traced(0.95, ge=0, le=1, help="decay of the momentum")
    iterations: int = static(5, ge=1, unit="iterations", help="of Newton-Schulz")

    def build(self, per_entry: bool = False) -> optax.GradientTransformationExtraArgs:
        matrices = optax.contrib.muon(
            self.lr,
            ns_steps=self.iterations,
            beta=self.beta,
            muon_weight_dimension_numbers=_dimensions,
        )
        adam = scale_by_adam_per_entry if per_entry else optax.scale_by_adam
        others = optax.chain(adam(), optax.scale(-self.lr * self.ratio))
        tx = optax.partition({"matrix": matrices, "other": others}, _labels)
        return optax.with_extra_args_support(tx)
