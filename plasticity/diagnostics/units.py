"""Units that have stopped taking part: dead, dormant, linearised; and the entropy of a unit's sign.

A unit j of a hidden layer has preactivation a_j(x) and output h_j(x) = phi(a_j(x)) on N rows (batch x positions).

    dead          max_x |phi'(a_j(x))| < tolerance; for piecewise-linear phi exactly: h_j(x) = 0 on all rows
    dormant       mean_x |h_j| / mean_k mean_x |h_k| <= tau                            (tau-dormant, as in ReDo)
    linearised    not dead, and phi acts on the unit's rows as one affine function
    sign entropy  H(p) = -p log2 p - (1 - p) log2(1 - p), p = share of rows with a_j > 0; in bits, 0 to 1

References: dead and linearised units: Lyle et al. 2024, "Disentangling the causes of plasticity loss"
(arXiv:2402.18762), which gives no tolerances: those here are the suite's. Dormant units: Sokar et al. 2023
(arXiv:2302.12902).

Names collide in the literature. "Dead" and "dormant" also stand for the share of zero activations (that is
sparsity), for units active on fewer than 1 % of rows, and for dead feature-map elements; none of those is
computed here. A network's value is sum over units / number of units, where others average the layers' shares.

With CReLU a unit is a pair of features, u and u + U: it is dead or dormant only if both are. On a batch of one
row every unit is constant, so each unit that is not dead and not a ReLU at zero counts as linearised. All masks are
False for a unit with NaN; `diagnose` then reports NaN for the layer.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from plasticity.activations import NONLINEARITIES
from plasticity.diagnostics.arrays import as_rows, magnitude
from plasticity.diagnostics.base import Layer, Observation, Phi, Reading, Unmet, diagnostic, over_units, width_of

#: Linear on both sides of zero and zero at zero, so that the sign of a preactivation names the linear piece.
PIECEWISE_LINEAR = frozenset({"relu", "leaky_relu", "crelu"})
#: Zero exactly where nothing passes, so that dead units can be read from outputs. aid (in evaluation) is not among the
#: above: with one half on either side it is linear however signs are mixed, which the affine fit sees.
DEAD_IS_ZERO = PIECEWISE_LINEAR | {"aid"}

_LYLE = "Lyle et al. 2024, arXiv:2402.18762"


def own_features(values: Float[Array, "... features"], units: int) -> Float[Array, "... owned units"]:
    """Split a feature axis laid out unit-fastest (u, u + U, ...) into the features that each unit owns."""
    return values.reshape(*values.shape[:-1], -1, units)


def dead_mask(
    pre: Float[Array, "*batch units"] | None,
    post: Float[Array, "*batch features"],
    activation: Phi = "relu",
    dead_tolerance: float = 1e-6,
) -> Bool[Array, " units"]:
    """Units that pass no gradient on any row.

    For ReLU, leaky ReLU, CReLU and AID the test is exact and reads `post` only: h = 0 on all rows. A leaky ReLU with
    a positive slope is therefore never dead, unless its preactivation is identically zero. For every other phi
    it is max over rows of |phi'(pre)| < dead_tolerance, and `pre` is required; of a phi with trained coefficients
    (rational), which are not known here, the largest change of the output over that of a preactivation that moves at
    all, from the first row on. Deep Fourier features are never dead. Cost: elementwise.
    """
    post = as_rows(post)
    units = post.shape[-1] // width_of(activation)
    if isinstance(activation, str) and activation in DEAD_IS_ZERO:
        return (own_features(jnp.max(jnp.abs(post), axis=0), units) == 0).all(axis=0)
    if pre is None:
        raise Unmet(f"dead units of {activation!r} need preactivations: pass (pre, post) for every layer")
    z = as_rows(pre)
    if isinstance(activation, str) and NONLINEARITIES[activation].learned:
        moved, followed = (jnp.max(jnp.abs(x - x[0]), axis=0) for x in (z, post))
        return followed < dead_tolerance * moved
    phi = (lambda z: NONLINEARITIES[activation].apply(z, 0.0)) if isinstance(activation, str) else activation
    _, slope = jax.jvp(phi, (z,), (jnp.ones_like(z),))
    return (own_features(jnp.max(jnp.abs(slope), axis=0), z.shape[-1]) < dead_tolerance).all(axis=0)


def positive_share(
    pre: Float[Array, "*batch units"] | None, post: Float[Array, "*batch features"], activation: Phi = "relu"
) -> Float[Array, " units"]:
    """Share of rows with a positive preactivation, 0 to 1. Zero counts as not positive. Cost: elementwise.

    Without `pre` the sign is read from `post`, where the nonlinearity keeps it (the first half of CReLU's does).
    """
    width = width_of(activation)
    if pre is None:
        if not (isinstance(activation, str) and NONLINEARITIES[activation].signed):
            raise Unmet(f"the sign of preactivations under {activation!r} needs (pre, post) for every layer")
        post = as_rows(post)
        pre = post[:, : post.shape[-1] // width]
    z = as_rows(pre)
    return jnp.mean(z > 0, axis=0, dtype=z.dtype)


def sign_entropy(positive: Float[Array, " units"]) -> Float[Array, " units"]:
    """Entropy in bits of a unit's sign, from its share of positive rows; 0 log 0 = 0, so 0 for one-sided units."""

    def term(p: Array) -> Array:
        return -p * jnp.log2(jnp.where(p > 0, p, 1.0))

    return term(positive) + term(1.0 - positive)


def dormant_scores(post: Float[Array, "*batch features"]) -> Float[Array, " features"]:
    """Mean |h| per feature over its mean over the layer's features: 1 is average, 0 is dead. Cost: elementwise.

    The mean of the scores is 1 (the paper's text says they sum to 1; its authors confirm the mean). In a layer
    that is zero everywhere all scores are 0. Multiplying the layer by a positive number changes nothing.
    """
    h = jnp.abs(as_rows(post))
    # Scaled first, so that means of huge activations do not overflow.
    mean = jnp.mean(h / magnitude(h), axis=0)
    layer = jnp.mean(mean)
    return mean / jnp.where(layer > 0, layer, 1.0)


def dormant_mask(
    post: Float[Array, "*batch features"], tau: float = 0.025, activation: Phi = "relu"
) -> Bool[Array, " units"]:
    """Units whose features all have a score <= tau. tau = 0 gives units that are zero on all rows."""
    scores = dormant_scores(post)
    return (own_features(scores, scores.shape[-1] // width_of(activation)) <= tau).all(axis=0)


def affine_fit(pre: Float[Array, "*batch units"], post: Float[Array, "*batch features"]) -> Float[Array, " units"]:
    """R^2 of the best affine fit of post on pre over rows, 0 to 1; for CReLU the smaller one of the pair.

    Equals the squared correlation. A post that is constant over rows (up to rounding) is fitted exactly: R^2 =
    1, as on a batch of one. A constant pre with a varying post gives 0. Cost: elementwise.
    """
    z, h = as_rows(pre), as_rows(post)
    units = z.shape[-1]
    dz, dh = _standardised(z)[:, None, :], own_features(_standardised(h), units)
    vz, vh, cov = jnp.sum(dz**2, axis=0), jnp.sum(dh**2, axis=0), jnp.sum(dz * dh, axis=0)
    fit = cov**2 / jnp.where(vz * vh > 0, vz * vh, 1.0)
    return jnp.min(jnp.where(vh == 0, 1.0, jnp.minimum(fit, 1.0)), axis=0)


def _standardised(x: Float[Array, "rows features"]) -> Float[Array, "rows features"]:
    """Columns minus their mean, over their largest deviation; zero where a column is constant up to rounding."""
    centred = x - jnp.mean(x, axis=0)
    spread = jnp.max(jnp.abs(centred), axis=0)
    constant = spread <= 8 * jnp.finfo(x.dtype).eps * jnp.max(jnp.abs(x), axis=0)
    return jnp.where(constant, 0.0, centred / jnp.where(constant, 1.0, spread))


def linearized_mask(
    pre: Float[Array, "*batch units"] | None,
    post: Float[Array, "*batch features"],
    activation: Phi = "relu",
    linear_share: float = 0.999,
    linear_fit: float = 0.999,
    dead_tolerance: float = 1e-6,
) -> Bool[Array, " units"]:
    """Units that are not dead and act linearly ("zombie" units): gradients pass, but the nonlinearity is lost.

    ReLU: positive on a share of rows >= linear_share. Leaky ReLU and CReLU: either sign on that share.
    Every other phi: R^2 of the affine fit >= linear_fit, which takes `pre`. Cost: elementwise.
    """
    if isinstance(activation, str) and activation in PIECEWISE_LINEAR:
        p = positive_share(pre, post, activation)
        linear = (p if activation == "relu" else jnp.maximum(p, 1 - p)) >= linear_share
    elif pre is None:
        raise Unmet(f"linearised units of {activation!r} need preactivations: pass (pre, post) for every layer")
    else:
        linear = affine_fit(pre, post) >= linear_fit
    return linear & ~dead_mask(pre, post, activation, dead_tolerance)


def _pre(layer: Layer) -> Array:
    if layer.pre is None:
        raise Unmet(f"layer {layer.name!r} has no preactivations")
    return layer.pre


@diagnostic(
    name="dead_units",
    unit="share of units",
    range=(0, 1),
    needs=("activations",),
    cost="elementwise",
    reference=_LYLE,
)
def _dead_units(seen: Observation, *, dead_tolerance: float = 1e-6) -> Reading:
    """Share of units that pass no gradient on any row: max |phi'(a)| < dead_tolerance (ReLU: h = 0, exactly)."""
    return over_units(seen.layers, lambda y: dead_mask(y.pre, y.post, seen.activation, dead_tolerance))


@diagnostic(
    name="linearized_units",
    unit="share of units",
    range=(0, 1),
    needs=("activations",),
    cost="elementwise",
    reference=_LYLE,
)
def _linearized_units(
    seen: Observation, *, linear_share: float = 0.999, linear_fit: float = 0.999, dead_tolerance: float = 1e-6
) -> Reading:
    """Share of units that are not dead but act linearly (ReLU: positive on >= linear_share of the rows)."""
    thresholds = linear_share, linear_fit, dead_tolerance
    return over_units(seen.layers, lambda y: linearized_mask(y.pre, y.post, seen.activation, *thresholds))


@diagnostic(
    name="one_sided_units",
    unit="share of units",
    range=(0, 1),
    needs=("activations",),
    cost="elementwise",
    reference=_LYLE,
)
def _one_sided_units(seen: Observation, *, linear_share: float = 0.999) -> Reading:
    """Share of units with one sign of preactivation on >= linear_share of the rows, dead units included."""

    def measure(layer: Layer) -> Array:
        p = positive_share(layer.pre, layer.post, seen.activation)
        return jnp.maximum(p, 1 - p) >= linear_share

    return over_units(seen.layers, measure)


@diagnostic(
    name="affine_fit_units",
    unit="share of units",
    range=(0, 1),
    needs=("preactivations",),
    cost="elementwise",
    reference=_LYLE,
)
def _affine_fit_units(seen: Observation, *, linear_fit: float = 0.999) -> Reading:
    """Share of units whose output is an affine function of the preactivation, R^2 >= linear_fit, dead ones included."""
    return over_units(seen.layers, lambda layer: affine_fit(_pre(layer), layer.post) >= linear_fit)


@diagnostic(
    name="low_variance_units",
    unit="share of units",
    range=(0, 1),
    needs=("preactivations",),
    cost="elementwise",
    reference=_LYLE,
)
def _low_variance_units(seen: Observation, *, linear_variance: float = 1e-4) -> Reading:
    """Share of units whose preactivation has variance over rows (divisor N) below linear_variance."""
    return over_units(seen.layers, lambda layer: jnp.var(_pre(layer), axis=0) < linear_variance)


@diagnostic(
    name="dormant_units",
    unit="share of units",
    range=(0, 1),
    needs=("activations",),
    cost="elementwise",
    reference="Sokar et al. 2023, arXiv:2302.12902",
)
def _dormant_units(seen: Observation, *, tau: float = 0.025) -> Reading:
    """Share of tau-dormant units: mean |h| over its mean over the layer is at most tau (all, in an all-zero layer)."""
    return over_units(seen.layers, lambda layer: dormant_mask(layer.post, tau, seen.activation))


@diagnostic(
    name="sign_entropy",
    unit="bits",
    range=(0, 1),
    needs=("activations",),
    cost="elementwise",
    reference="name from follow-ups of " + _LYLE,
)
def _sign_entropy(seen: Observation) -> Reading:
    """Mean over units of the entropy of the preactivation's sign: 0 if dead or one-sided, 1 if balanced."""

    def measure(layer: Layer) -> Array:
        return sign_entropy(positive_share(layer.pre, layer.post, seen.activation))

    return over_units(seen.layers, measure)
