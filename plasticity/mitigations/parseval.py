"""Parseval regularisation: a penalty that keeps the weights of hidden layers orthogonal."""

from __future__ import annotations

from typing import Self

import jax
import jax.numpy as jnp

from plasticity.config import traced
from plasticity.mitigations.base import Context, Mitigation, mitigations
from plasticity.mitigations.penalties import hidden_matrices
from plasticity.network import Params


@mitigations.register("parseval")
class Parseval(Mitigation):
    """strength times the sum over hidden layers of |G - scale I|_F^2, G the smaller one of W W^T and W^T W.

    The source has W W^T, W `[units, inputs]`. Where a layer has more units than inputs the two differ by the constant
    (units - inputs) scale^2, so the gradient is the source's and the penalty is 0 for weights that are as orthogonal as
    their shape allows. scale is the square of the singular values that it aims at, gain^2. The source's code multiplies
    the strength by (64 / width)^2; here it does not. The output layer, biases and normalisations are left alone, a
    convolution is out x (in kh kw). The source starts from orthogonal weights; this suite's networks do not, so the
    penalty is not 0 at the start.
    """

    reference = "Chung et al. 2024, arXiv:2412.07224 (1e-3, scale 2)"
    cost = "a product of each hidden weight matrix with itself an update"
    stage = "penalty"

    strength: float = traced(1e-3, ge=0, positional=True, help="coefficient")
    scale: float = traced(2.0, gt=0, help="squared singular value that is aimed at")

    def neutral(self) -> Self:
        return type(self)(strength=0.0, scale=self.scale)

    def penalty(self, params: Params, context: Context) -> jax.Array:
        def distance(w: jax.Array) -> jax.Array:
            gram = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
            return jnp.sum(jnp.square(gram - self.scale * jnp.eye(gram.shape[0], dtype=gram.dtype)))

        return self.strength * sum(map(distance, hidden_matrices(params, context.network)), jnp.zeros(()))
