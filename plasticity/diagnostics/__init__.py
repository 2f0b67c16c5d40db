"""Diagnostics of plasticity: pure functions on activations, parameters, gradients and updates, one file a family.

`diagnose(...)` runs a chosen set and returns a flat mapping of scalars; the functions that it is made of can be
called on arrays directly, e.g. `plasticity.diagnostics.rank.srank(features)`. Importing this package needs JAX
and NumPy only (and jaxtyping, for the shapes in annotations).
"""

from plasticity.diagnostics.base import (
    Diagnostic,
    Layer,
    Observation,
    Reading,
    diagnose,
    diagnostic,
    diagnostics,
    get,
    thresholds_of,
    unit_of,
)
from plasticity.diagnostics.standalone import Standalone, standalones

__all__ = [
    "Diagnostic",
    "Layer",
    "Observation",
    "Reading",
    "Standalone",
    "diagnose",
    "diagnostic",
    "diagnostics",
    "get",
    "standalones",
    "thresholds_of",
    "unit_of",
]
