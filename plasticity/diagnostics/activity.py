"""How much units do: exact silence, silence with tolerance, rare firing, sparsity, saturation; and the features' size.

A unit j of a hidden layer has output h_j(x) on N rows (batch x positions).

    always zero units           h_j = 0 on all rows, exactly
    nearly dead units           |h_j| <= zero_tolerance on at least the share quiet_share of rows
    rarely active units         h_j != 0 on less than the share active_share of rows
    zero activation share       mean over rows and units of 1[h_j = 0]
    saturated activation share  mean over rows and units of 1[|2 (h_j - low) / (high - low) - 1| > saturation]
    feature norm                mean over rows of ||h||_2

Four things are called "dead" or "dormant" in the literature, and all of them are here or in `units`: zero on a
whole batch (always zero), zero on 95 % of it (nearly dead), active on less than 1 % (rarely active), and the mere
share of zeros, which is sparsity: a healthy ReLU layer has about half. One minus that share is the fraction of
active units (FAU). For ReLU, always zero and dead are the same; under any other nonlinearity a unit that is zero
may still pass gradient, and one that passes none need not be zero. None of these depends on a layer's mean, unlike
tau-dormancy.

Saturation is stated for bounded nonlinearities only; for tanh it is |h| > 0.9 by default, and for a sigmoid the outer
twentieth on either side. With CReLU a unit is a pair of features, and silent only if both are. Positions of a
feature map are rows, so `feature_norm` of a convolution is that of one position's channels.

References: zero on a batch, rarely active, saturated: Dohare et al. 2024 (doi:10.1038/s41586-024-07711-7), whose code's
thresholds are the defaults; zero with tolerance: Joudaki et al. 2025 (arXiv:2510.00304).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from plasticity.diagnostics.arrays import Scalar, as_rows, magnitude
from plasticity.diagnostics.base import (
    Layer,
    Observation,
    Phi,
    Reading,
    Unmet,
    diagnostic,
    over_layers,
    over_units,
    width_of,
)
from plasticity.diagnostics.standalone import standalone
from plasticity.diagnostics.units import own_features
from plasticity.errors import UserError

_DOHARE = "Dohare et al. 2024, doi:10.1038/s41586-024-07711-7"

#: Lowest and highest output of bounded nonlinearities, by name or as the function itself.
BOUNDS: tuple[tuple[Any, tuple[float, float]], ...] = (
    ("tanh", (-1.0, 1.0)),
    (jnp.tanh, (-1.0, 1.0)),
    (jax.nn.tanh, (-1.0, 1.0)),
    (jax.lax.tanh, (-1.0, 1.0)),
    (jax.nn.sigmoid, (0.0, 1.0)),
    (jax.nn.hard_tanh, (-1.0, 1.0)),
    (jax.nn.hard_sigmoid, (0.0, 1.0)),
    (jax.nn.soft_sign, (-1.0, 1.0)),
)


def bounds_of(activation: Phi) -> tuple[float, float] | None:
    """Lowest and highest output of a nonlinearity that is known to be bounded, else None."""
    for known, bounds in BOUNDS:
        if activation is known or (isinstance(activation, str) and activation == known):
            return bounds
    return None


def share_of_active_rows(post: Float[Array, "*batch features"], activation: Phi = "relu") -> Float[Array, " units"]:
    """Share of rows with h != 0, 0 to 1; for CReLU, in either of the pair. Cost: elementwise."""
    return jnp.mean(_loudest(post, activation) != 0, axis=0, dtype=jnp.float32)


def share_of_quiet_rows(
    post: Float[Array, "*batch features"], activation: Phi = "relu", zero_tolerance: float = 1e-7
) -> Float[Array, " units"]:
    """Share of rows with |h| <= zero_tolerance, 0 to 1; for CReLU, in both of the pair. Cost: elementwise."""
    return jnp.mean(_loudest(post, activation) <= zero_tolerance, axis=0, dtype=jnp.float32)


def _loudest(post: Any, activation: Phi) -> Float[Array, "rows units"]:
    h = jnp.abs(as_rows(post))
    return jnp.max(own_features(h, h.shape[-1] // width_of(activation)), axis=-2)


def always_zero_mask(post: Float[Array, "*batch features"], activation: Phi = "relu") -> Bool[Array, " units"]:
    """Units whose output is exactly zero on all rows."""
    return (_loudest(post, activation) == 0).all(axis=0)


def zero_share(post: Float[Array, "*batch features"], activation: Phi = "relu") -> Float[Array, " units"]:
    """Share of a unit's outputs that are exactly zero, over rows and, for CReLU, both features. Cost: elementwise."""
    h = as_rows(post)
    return jnp.mean(own_features(h, h.shape[-1] // width_of(activation)) == 0, axis=(0, 1), dtype=h.dtype)


def saturated_share(
    post: Float[Array, "*batch units"], low: float = -1.0, high: float = 1.0, saturation: float = 0.9
) -> Float[Array, " units"]:
    """Share of rows on which an output between low and high is further than `saturation` of the way to one of them."""
    h = as_rows(post)
    return jnp.mean(jnp.abs(2 * (h - low) / (high - low) - 1) > saturation, axis=0, dtype=h.dtype)


def feature_norm(post: Float[Array, "*batch features"]) -> Scalar:
    """Mean over rows of the L2 norm of a row's features. Cost: elementwise."""
    h = as_rows(post)
    scale = magnitude(h)
    return scale * jnp.mean(jnp.linalg.norm(h / scale, axis=-1))


@standalone(
    name="feature_dot_product",
    unit="squared feature",
    range=(-float("inf"), float("inf")),
    cost="elementwise",
    reference="Kumar et al. 2022 (DR3), arXiv:2112.04716",
)
def feature_dot_product(
    features: Float[Array, "batch features"], next_features: Float[Array, "batch features"]
) -> Scalar:
    """Mean over transitions of phi(s, a) . phi(s', a'), the quantity that DR3 penalises: a dot product, not a cosine.

    features, next_features: the last hidden layer on a transition and on its successor, row by row, `[batch,
    (positions,) features]`; positions are rows too. It grows with the features' norm, so read it beside
    `feature_norm`. Raises `UserError` if the shapes differ. NaN if an entry is NaN.
    """
    a, b = as_rows(features, "features"), as_rows(next_features, "next_features")
    if a.shape != b.shape:
        raise UserError(f"features {a.shape} and next_features {b.shape} must have one shape, as [rows, features]")
    return jnp.mean(jnp.sum(a * b, axis=-1))


@diagnostic(
    name="always_zero_units",
    unit="share of units",
    range=(0, 1),
    needs=("activations",),
    cost="elementwise",
    reference=_DOHARE,
)
def _always_zero_units(seen: Observation) -> Reading:
    """Share of units whose output is exactly zero on all rows, whatever the nonlinearity."""
    return over_units(seen.layers, lambda layer: always_zero_mask(layer.post, seen.activation))


@diagnostic(
    name="nearly_dead_units",
    unit="share of units",
    range=(0, 1),
    needs=("activations",),
    cost="elementwise",
    reference="Joudaki et al. 2025, arXiv:2510.00304",
)
def _nearly_dead_units(seen: Observation, *, zero_tolerance: float = 1e-7, quiet_share: float = 0.95) -> Reading:
    """Share of units with |h| <= zero_tolerance on at least the share quiet_share of the rows."""

    def measure(layer: Layer) -> Array:
        return share_of_quiet_rows(layer.post, seen.activation, zero_tolerance) >= quiet_share

    return over_units(seen.layers, measure)


@diagnostic(
    name="rarely_active_units",
    unit="share of units",
    range=(0, 1),
    needs=("activations",),
    cost="elementwise",
    reference=_DOHARE,
)
def _rarely_active_units(seen: Observation, *, active_share: float = 0.01) -> Reading:
    """Share of units that are non-zero on less than the share active_share of the rows; does not depend on scale."""
    return over_units(seen.layers, lambda layer: share_of_active_rows(layer.post, seen.activation) < active_share)


@diagnostic(
    name="zero_activation_share",
    unit="share of activations",
    range=(0, 1),
    needs=("activations",),
    cost="elementwise",
    reference="sparsity; 1 - FAU of Ma et al. 2024, arXiv:2310.07418",
)
def _zero_activation_share(seen: Observation) -> Reading:
    """Share of activations that are exactly zero: sparsity, not death. One minus it is the fraction of active units."""
    return over_units(seen.layers, lambda layer: zero_share(layer.post, seen.activation))


@diagnostic(
    name="saturated_activation_share",
    unit="share of activations",
    range=(0, 1),
    needs=("activations",),
    cost="elementwise",
    reference=_DOHARE,
)
def _saturated_activation_share(seen: Observation, *, saturation: float = 0.9) -> Reading:
    """Share of activations near a bound of the nonlinearity (tanh: |h| > saturation); bounded ones only."""
    bounds = bounds_of(seen.activation)
    if bounds is None:
        raise Unmet(f"saturation is defined for bounded nonlinearities such as tanh, not for {seen.activation!r}")
    return over_units(seen.layers, lambda layer: saturated_share(layer.post, *bounds, saturation))


@diagnostic(
    name="feature_norm",
    unit="L2 norm",
    range=(0, float("inf")),
    needs=("activations",),
    cost="elementwise",
    reference="standard",
)
def _feature_norm(seen: Observation) -> Reading:
    """Mean over rows of the L2 norm of a row's features; the network's value is the mean over layers."""
    return over_layers(seen.layers, lambda layer: feature_norm(layer.post))
