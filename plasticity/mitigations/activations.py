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
