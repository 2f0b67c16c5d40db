"""The distribution of preactivations, and how far it has moved from a reference.

For a layer's preactivations a_j(x) on N rows (batch x positions), all units pooled:

    mean, std, skewness m_3 / m_2^1.5, excess kurtosis m_4 / m_2^2 - 3      m_k = mean (a - mean)^k

and by unit, against the same layer on `reference_activations` (mu', s' there, mu, s here), averaged over units:

    shift           |mu_j - mu'_j| / s'_j                                    0 .. 1e6
    log std ratio   log(s_j / s'_j), natural                                 -13.8 .. 13.8

Standard deviations have divisor N. The ratio in both is kept within 1e-6 .. 1e6, so that one unit that has become
constant (all inputs dead, say) does not make the layer's average infinite: such a unit counts 1e6, or 13.8 with its
sign. 0 / 0 is no shift and a log of 0. Skewness and excess kurtosis of constant preactivations are 0. The network's
value is the mean over layers for the pooled moments and the mean over units for the two comparisons.

What to pass as reference: activations at initialisation, or before a task change, on any batch of the same
distribution; the number of rows may differ. On the *same* rows nothing but the parameters has moved.

References: preactivation shift as a cause of plasticity loss: Lyle et al. 2024 (arXiv:2402.18762), which plots
distributions and states no scalar: the two comparisons are the suite's. Names: "Gaussianity" elsewhere is a test's
p-value on a subsample (Shapiro-Wilk, on the host); here the two moments that such a test weighs.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from plasticity.diagnostics.arrays import Moments, as_rows, magnitude, moments, safe_ratio
from plasticity.diagnostics.base import Layer, Observation, Reading, Unmet, diagnostic, over_layers, over_units

#: Bounds of a ratio of spreads, and of a shift in standard deviations.
LARGEST = 1e6

_LYLE = "Lyle et al. 2024, arXiv:2402.18762"


def unit_moments(values: Float[Array, "*batch units"]) -> tuple[Float[Array, " units"], Float[Array, " units"]]:
    """Mean and standard deviation (divisor N) of each unit over rows; std is 0 where it is rounding only."""
    x = as_rows(values, "preactivations")
    scale = magnitude(x)
    x = x / scale
    mean = jnp.mean(x, axis=0)
    spread = x - mean
    # Scaled by the unit's own spread: squares of a quiet unit beside a loud one would vanish.
    widest = jnp.max(jnp.abs(spread), axis=0)
    constant = widest <= 8 * jnp.finfo(x.dtype).eps * jnp.max(jnp.abs(x), axis=0)
    std = widest * jnp.sqrt(jnp.mean((spread / jnp.where(constant, 1.0, widest)) ** 2, axis=0))
    return mean * scale, jnp.where(constant, 0.0, std) * scale


def shift(now: Float[Array, "*batch units"], reference: Float[Array, "*batch units"]) -> Float[Array, " units"]:
    """|mean now - mean in the reference| / std in the reference, by unit, at most 1e6; 0 / 0 is 0. Elementwise."""
    mean, _ = unit_moments(now)
    mean_before, std_before = unit_moments(reference)
    moved = jnp.abs(mean - mean_before)
    # What rounding of the two means alone can make of equal ones.
    noise = 8 * jnp.finfo(moved.dtype).eps * jnp.maximum(jnp.abs(mean), jnp.abs(mean_before))
    return jnp.minimum(safe_ratio(jnp.where(moved <= noise, 0.0, moved), std_before), LARGEST)


def log_std_ratio(now: Float[Array, "*batch units"], reference: Float[Array, "*batch units"]) -> Float[Array, " units"]:
    """log of std now over std in the reference, by unit, the ratio within 1e-6 .. 1e6; log(0 / 0) is 0. Elementwise."""
    (_, std), (_, before) = unit_moments(now), unit_moments(reference)
    both = (std == 0) & (before == 0)
    return jnp.log(jnp.clip(jnp.where(both, 1.0, safe_ratio(std, before)), 1 / LARGEST, LARGEST))


def _pre(layer: Layer, argument: str = "activations") -> Array:
    if layer.pre is None:
        raise Unmet(f"layer {layer.name!r} has no preactivations: pass {argument}= with (pre, post) for every layer")
    return layer.pre


def pooled(layer: Layer) -> Moments:
    """Moments of a layer's preactivations, all units together."""
    return moments([_pre(layer)])


def _compared(seen: Observation, measure: Callable[[Array, Array], Array]) -> Reading:
    def of(layer: Layer) -> Array:
        other = seen.reference[layer.name]
        value = measure(_pre(layer), _pre(other, "reference_activations"))
        return jnp.where(other.finite, value, jnp.nan)

    return over_units(seen.layers, of)


@diagnostic(
    name="preactivation_mean",
    unit="preactivation",
    range=(-float("inf"), float("inf")),
    needs=("preactivations",),
    cost="elementwise",
    reference=_LYLE,
)
def _preactivation_mean(seen: Observation) -> Reading:
    """Mean of a layer's preactivations, all units and rows pooled; the network's value is the mean over layers."""
    return over_layers(seen.layers, lambda layer: pooled(layer).mean)


@diagnostic(
    name="preactivation_std",
    unit="preactivation",
    range=(0, float("inf")),
    needs=("preactivations",),
    cost="elementwise",
    reference=_LYLE,
)
def _preactivation_std(seen: Observation) -> Reading:
    """Standard deviation (divisor N) of a layer's pooled preactivations; the network's value is the layers' mean."""
    return over_layers(seen.layers, lambda layer: pooled(layer).std)


@diagnostic(
    name="preactivation_skewness",
    unit="1",
    range=(-float("inf"), float("inf")),
    needs=("preactivations",),
    cost="elementwise",
    reference=_LYLE,
)
def _preactivation_skewness(seen: Observation) -> Reading:
    """Skewness of a layer's pooled preactivations, 0 if symmetric or constant; network: the layers' mean."""
    return over_layers(seen.layers, lambda layer: pooled(layer).skewness)


@diagnostic(
    name="preactivation_excess_kurtosis",
    unit="1",
    range=(-2.001, float("inf")),
    needs=("preactivations",),
    cost="elementwise",
    reference=_LYLE,
)
def _preactivation_excess_kurtosis(seen: Observation) -> Reading:
    """Excess kurtosis of a layer's pooled preactivations, 0 if Gaussian or constant; network: the layers' mean."""
    return over_layers(seen.layers, lambda layer: pooled(layer).excess_kurtosis)


@diagnostic(
    name="preactivation_shift",
    unit="standard deviations of the reference",
    range=(0, LARGEST),
    needs=("preactivations", "reference_activations"),
    cost="elementwise",
    reference="the suite's; after " + _LYLE,
)
def _preactivation_shift(seen: Observation) -> Reading:
    """Mean over units of |mean now - mean in the reference| / std in the reference, each at most 1e6."""
    return _compared(seen, shift)


@diagnostic(
    name="preactivation_log_std_ratio",
    unit="nats",
    range=(-14, 14),
    needs=("preactivations", "reference_activations"),
    cost="elementwise",
    reference="the suite's; after " + _LYLE,
)
def _preactivation_log_std_ratio(seen: Observation) -> Reading:
    """Mean over units of log(std now / std in the reference), the ratio within 1e-6 .. 1e6; positive: spread grew."""
    return _compared(seen, log_std_ratio)
