"""Choices inside a network that mitigations make, as plain data: what is done with them is in the modules named here.

Without Flax, so that a mitigation can be used where there is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from plasticity.errors import unknown

#: Added to the variance, by kind: each source's own, and Flax's for `layer` and `rms`, whose sources state none.
EPSILON = {"layer": 1e-6, "rms": 1e-6, "group": 1e-5, "batch": 1e-5, "batch_renorm": 1e-3, "hybrid": 1e-5}
KERNELS = ("plain", "weight_norm", "spectral_norm")
#: Which layers: in them a kernel's place is `hidden`, `last_hidden` or `output`. `first_dense` is the first dense layer
#: of the hidden ones, whatever its place (in both streams, if there is none before them).
PLACES = {
    "all": ("hidden", "last_hidden", "output"),
    "hidden": ("hidden", "last_hidden"),
    "last_hidden": ("last_hidden",),
    "first_dense": (),
}


@dataclass(frozen=True)
class Normalization:
    """What stands before a nonlinearity, see `normalization`. kind: a key of `EPSILON`, or `none`. momentum: weight of
    the old running average. groups: of `group`. warm_up: updates, r_max and d_max: bounds, of `batch_renorm`."""

    kind: str = "none"
    momentum: float = 0.99
    groups: int = 4
    warm_up: int = 100_000
    r_max: float = 3.0
    d_max: float = 5.0

    def __post_init__(self) -> None:
        if self.kind not in ("none", *EPSILON):
            raise unknown("normalization", self.kind, ("none", *EPSILON))

    @classmethod
    def of(cls, value: str | Normalization) -> Normalization:
        """From a name, with the default options."""
        return value if isinstance(value, Normalization) else cls(value)

    @property
    def offset(self) -> bool:
        """Whether there is a learned offset beside the scale."""
        return self.kind not in ("none", "rms")


@dataclass(frozen=True)
class Kernels:
    """How kernels follow from what is trained, see `kernels`. kind: one of `KERNELS`. layers: a key of `PLACES`."""

    kind: str = "plain"
    layers: str = "all"

    def at(self, place: str, first_dense: bool = False) -> str:
        """The kind of a kernel at a place."""
        chosen = place in PLACES[self.layers] or (first_dense and self.layers == "first_dense")
        return self.kind if chosen else "plain"


PLAIN = Kernels()


@dataclass(frozen=True)
class Sparse:
    """Draws of kernels with zeros, see `linear.sparse`. sparsity: share of a unit's incoming weights that are zero."""

    sparsity: float

    def zeros(self, fan_in: int) -> int:
        """How many of a unit's incoming weights are zero: the share, rounded up; one is left in any case."""
        # Rounded first: .07 of 100 is 7.000000000000001.
        return min(math.ceil(round(self.sparsity * fan_in, 6)), fan_in - 1)
