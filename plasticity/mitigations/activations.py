"""Nonlinearities as mitigations: what stands in the place of the network's ReLU."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

from plasticity.config import traced
from plasticity.mitigations.base import Mitigation, mitigations
from plasticity.networks.base import Architecture


class _Activation(Mitigation):
    stage = "activation"

    def network(self, architecture: Architecture) -> Architecture:
        return replace(architecture, activation=self.name)


@mitigations.register("relu")
class ReLU(_Activation):
    """max(z, 0): the networks' own nonlinearity, so naming it changes nothing."""

    def neutral(self) -> Self:
        return self


@mitigations.register("leaky_relu")
class LeakyReLU(_Activation):
    """z where positive, slope z elsewhere: no unit dies, but units can still become linear. Slope 0 is ReLU."""

    reference = "Maas et al. 2013; as a mitigation Lyle et al. 2024, arXiv:2402.18762"

    slope: float = traced(0.01, ge=0, le=1, positional=True, help="slope on the negative side")

    def neutral(self) -> Self:
        return type(self)(slope=0.0)

    def network(self, architecture: Architecture) -> Architecture:
        return replace(super().network(architecture), slope=self.slope)


@mitigations.register("gelu")
class GELU(_Activation):
    """z Phi(z) in its tanh form: smooth; a unit whose preactivations hardly vary acts linearly."""

    reference = "Hendrycks & Gimpel 2016, arXiv:1606.08415"


@mitigations.register("tanh")
class Tanh(_Activation):
    """tanh z: saturates on both sides instead of dying."""


@mitigations.register("crelu")
class CReLU(_Activation):
    """[relu(z), relu(-z)]: each unit passes gradient on one side or the other; the next layer's fan-in doubles."""

    reference = "Abbas et al. 2023, arXiv:2303.07507"


@mitigations.register("swish")
class Swish(_Activation):
    """z sigmoid(z), also called SiLU: smooth, with a dip below zero at z = -1.28."""

    reference = "Ramachandran et al. 2017, arXiv:1710.05941; Elfwing et al. 2018, arXiv:1702.03118"


@mitigations.register("elu")
class ELU(_Activation):
    """z where positive, exp(z) - 1 elsewhere: a unit far on the negative side is constant at -1."""

    reference = "Clevert et al. 2016, arXiv:1511.07289 (alpha 1)"


@mitigations.register("fourier")
class Fourier(_Activation):
    """Deep Fourier features: [sin z, cos z], so that where one has no gradient the other has all of it.

    A unit is the pair, and the next layer's fan-in doubles (the source halves the number of units, to keep the number
    of features: choose the network's width). The norm of a layer's features is always the square root of its units, no
    unit is dead, and none is dormant: resets by dormancy never act, and one that does act changes the function.
    """

    reference = "Lewandowski et al. 2024, arXiv:2410.20634"


@mitigations.register("rational")
class Rational(_Activation):
    """(a_0 + a_1 z + ... + a_5 z^5) / (1 + |b_1 z + ... + b_4 z^4|), with coefficients trained, shared in a layer.

    They start near a leaky ReLU of slope .01, off by at most .0131 on [-3, 3]. They are trained at the rate of the
    weights, and shrink and perturb treats them as any parameter; penalties and decay leave them alone, as they do
    scales and offsets of normalisations, and resets of units do not touch them.
    """

    reference = "Molina et al. 2020, arXiv:1907.06732; in RL Delfosse et al. 2024, arXiv:2102.09407 (degrees 5 and 4)"
    cost = "about 20 operations for each element"
