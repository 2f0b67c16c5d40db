"""Units that copy each other, and sets of dormant units that stay the same.

    cloned units           live units i that have a live j != i with cos(h_i, h_j) > clone_cosine, over live units
    cloned units, centred  the same with each unit's mean over rows taken off, so that cos is the correlation
    dormant overlap        |A n B| / min(|A|, |B|)   A, B: tau-dormant units now and in the reference

All range from 0 to 1. A unit is live if its vector over rows is not zero (centred: not constant up to rounding):
dead units have no direction, so they are neither clones nor counted. Without live units the share is 0. The
network's value is over all units of all layers, clones of units of the same layer only. With CReLU a unit's vector
is that of both its features.

The uncentred form is the published one. All outputs of a ReLU are positive, so that vectors that share nothing but
their mean look alike: read the centred form beside it. A negated copy is no clone in either.

An overlap near 1 says that the same units stay dormant, near max(|A|, |B|) / units that the sets are unrelated. It
is 0 if a set is empty; read it beside `dormant_units`.

Cost: one product `[units, units]` a layer. References: clones: Joudaki et al. 2025 (arXiv:2510.00304), threshold
0.95. Overlap: Sokar et al. 2023 (arXiv:2302.12902).
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from plasticity.diagnostics.arrays import as_rows, magnitude
from plasticity.diagnostics.base import Observation, Phi, Reading, Scalar, diagnostic, width_of
from plasticity.diagnostics.units import dormant_mask, own_features

_JOUDAKI = "Joudaki et al. 2025, arXiv:2510.00304"


def clones(
    post: Float[Array, "*batch features"], clone_cosine: float = 0.95, activation: Phi = "relu", centred: bool = False
) -> tuple[Bool[Array, " units"], Bool[Array, " units"]]:
    """(has a twin, is live), by unit. Raises nothing on dead units: they are neither."""
    h = as_rows(post)
    h = h / magnitude(h)
    rounding = jnp.zeros(h.shape[-1], h.dtype)
    if centred:
        rounding = 8 * jnp.finfo(h.dtype).eps * jnp.max(jnp.abs(h), axis=0)
        h = h - jnp.mean(h, axis=0)
    h = jnp.where(jnp.max(jnp.abs(h), axis=0) > rounding, h, 0.0)
    owned = own_features(h, h.shape[-1] // width_of(activation))
    vectors = owned.reshape(-1, owned.shape[-1])
    # By their largest entry first, because squares of a quiet unit's entries vanish in float32.
    largest = jnp.max(jnp.abs(vectors), axis=0)
    live = largest > 0
    vectors = vectors / jnp.where(live, largest, 1.0)
    vectors = vectors / jnp.where(live, jnp.linalg.norm(vectors, axis=0), 1.0)
    cosines = jnp.matmul(vectors.T, vectors, precision="highest")
    others = live & live[:, None] & ~jnp.eye(len(live), dtype=bool)
    return ((cosines > clone_cosine) & others).any(axis=0), live


def overlap(a: Bool[Array, " units"], b: Bool[Array, " units"]) -> Scalar:
    """|A n B| / min(|A|, |B|) of two sets given as masks; 0 if one of them is empty."""
    return _overlap(jnp.sum(a & b), jnp.sum(a), jnp.sum(b))


def _overlap(both: Array, a: Array, b: Array) -> Scalar:
    return both / jnp.maximum(jnp.minimum(a, b), 1).astype(jnp.float32)


def _cloned(seen: Observation, clone_cosine: float, centred: bool) -> Reading:
    found = {n: clones(y.post, clone_cosine, seen.activation, centred) for n, y in seen.layers.items()}
    counts = {name: (jnp.sum(twin), jnp.sum(live)) for name, (twin, live) in found.items()}
    shares = {name: seen.layers[name].guard(twins / jnp.maximum(live, 1)) for name, (twins, live) in counts.items()}
    if not counts:
        return Reading(jnp.array(jnp.nan), {})
    twins, live = (sum(count[i] for count in counts.values()) for i in (0, 1))
    finite = jnp.stack([layer.finite for layer in seen.layers.values()]).all()
    return Reading(jnp.where(finite, twins / jnp.maximum(live, 1), jnp.nan), shares)


@diagnostic(
    name="cloned_units",
    unit="share of live units",
    range=(0, 1),
    needs=("activations",),
    cost="a product [units, units] a layer",
    reference=_JOUDAKI,
)
def _cloned_units(seen: Observation, *, clone_cosine: float = 0.95) -> Reading:
    """Share of live units with a twin in their layer: cosine of outputs over rows above clone_cosine, not centred."""
    return _cloned(seen, clone_cosine, centred=False)


@diagnostic(
    name="cloned_units_centred",
    unit="share of live units",
    range=(0, 1),
    needs=("activations",),
    cost="a product [units, units] a layer",
    reference=_JOUDAKI + "; centring is the suite's",
)
def _cloned_units_centred(seen: Observation, *, clone_cosine: float = 0.95) -> Reading:
    """Share of varying units with a twin in their layer: correlation of outputs over rows above clone_cosine."""
    return _cloned(seen, clone_cosine, centred=True)


@diagnostic(
    name="dormant_overlap",
    unit="share of the smaller set",
    range=(0, 1),
    needs=("activations", "reference_activations"),
    cost="elementwise",
    reference="Sokar et al. 2023, arXiv:2302.12902",
)
def _dormant_overlap(seen: Observation, *, tau: float = 0.025) -> Reading:
    """Share of the smaller of two sets of tau-dormant units, now and in the reference, that is in both; 0 if empty."""
    if not seen.layers:
        return Reading(jnp.array(jnp.nan), {})
    sizes, finite = {}, {}
    for name, layer in seen.layers.items():
        other = seen.reference[name]
        a, b = (dormant_mask(y.post, tau, seen.activation) for y in (layer, other))
        sizes[name] = jnp.stack([jnp.sum(a & b), jnp.sum(a), jnp.sum(b)])
        finite[name] = layer.finite & other.finite
    layers = {name: jnp.where(finite[name], _overlap(*sizes[name]), jnp.nan) for name in sizes}
    whole = _overlap(*jnp.sum(jnp.stack(list(sizes.values())), axis=0))
    return Reading(jnp.where(jnp.stack(list(finite.values())).all(), whole, jnp.nan), layers)
