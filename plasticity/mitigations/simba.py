"""Residual blocks in a multilayer perceptron, plain and as SimBa has them."""

from __future__ import annotations

from dataclasses import replace

from plasticity.config import static
from plasticity.mitigations.base import Mitigation, mitigations
from plasticity.networks.base import Architecture, Block


class _Blocks(Mitigation):
    stage = "block"
    expansion: int

    def network(self, architecture: Architecture) -> Architecture:
        return replace(architecture, block=Block(self.name, self.expansion))


@mitigations.register("simba")
class SimBa(_Blocks):
    """x <- x + W2 relu(W1 LN(x)) in the place of each hidden layer of `mlp`, after a linear embedding; LN at the end.

    W1 has `expansion` times `width` units, so that a network of the same width has more parameters. LN and both
    kernels are trained, with biases; norm scales and offsets are left alone by penalties. Only `mlp` has such blocks.
    The source standardises observations by running statistics first (inputs of this suite are scaled already), and
    draws W1 and W2 by He's normal, embedding and output orthogonally; here all are LeCun's normal. A reset of units
    acts on the layer inside a block: features of the stream are no units.
    """

    reference = "Lee et al. 2024, arXiv:2410.09754 (expansion 4)"
    cost = "kernels of 2 x 4 width^2 a block, in the place of width^2 a layer"

    expansion: int = static(4, ge=1, positional=True, help="units inside a block, as a multiple of the stream's width")


@mitigations.register("residual")
class Residual(_Blocks):
    """x <- x + W2 relu(W1 x) in the place of each hidden layer of `mlp`, after a linear embedding: no norm of its own.

    What is left of `simba` without its layer norms; a normalisation in the same spec stands before the nonlinearity.
    `expansion=1` is this suite's default. Only `mlp` has such blocks.
    """

    reference = "He et al. 2016, arXiv:1603.05027"
    cost = "two kernels a block in the place of one"

    expansion: int = static(1, ge=1, positional=True, help="units inside a block, as a multiple of the stream's width")
