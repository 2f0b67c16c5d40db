"""Per-unit trackers that need a past: how long since a unit fired, and its utility as continual backprop sees it.

    inter-firing ages   age_j = updates since unit j last fired, that is had a positive preactivation on some row; when
                        it fires again, the interval that ends is counted in the unit's histogram
    CBP utility         u_j <- d u_j + (1 - d) mean_x |h_j| sum |W_out,j|,   u^_j = u_j / (1 - d^t_j)
                        t_j: updates since the unit's tracking began, its age

Each is a state (a named tuple of arrays) and pure functions of it, for `lax.scan`, `jit` and `vmap` over runs:

    state = start_ages(units)
    state = update_ages(state, pre)             # every training step, on the step's own batch
    readings = age_readings(state)              # scalars, to be recorded

Ages are counted in updates, not samples: a unit that fires twice in a batch has fired once, so the resolution is
one batch. Elsewhere samples are counted and batch_size is added at once. Until a unit has fired for the first time
its age counts from the start of tracking, and that first interval, whose beginning nobody saw, is left out of the
histogram.

The published text has the sum over outgoing weights; code is also found with their mean, which is this divided by
the fan-out, and with the mean of signed h. Rank units by the corrected u^: the raw average of a young unit is low
because it is young (at d = .99 and an age of 100, .634 of the truth). After a reset, pass the mask to
`reset_utility` or `reset_ages`.

Memory: ages, 4 bytes x units x (bins + 2); utility, 8 bytes x units. NaN in an activation makes a unit's utility NaN
until it is reset, and does not fire.

References: ages: Farias & Jozefiak 2024, self-normalised resets (arXiv:2410.20098). Utility: Dohare et al. 2024
(doi:10.1038/s41586-024-07711-7).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from plasticity.diagnostics.arrays import Scalar, as_rows
from plasticity.diagnostics.base import Phi, width_of
from plasticity.diagnostics.norms import as_float
from plasticity.diagnostics.standalone import standalone
from plasticity.diagnostics.units import own_features
from plasticity.errors import UserError


class FiringAges(NamedTuple):
    """age: updates since the last firing; fired: whether the unit ever fired; histogram: ended intervals by length.

    Column i of the histogram counts intervals of i + 1 updates; the last one, all that are at least as long.
    """

    age: Int[Array, " units"]
    fired: Bool[Array, " units"]
    histogram: Int[Array, "units bins"]


def start_ages(units: int, bins: int = 64) -> FiringAges:
    """No unit has fired yet. Raises `UserError` for fewer than one unit or bin."""
    if units < 1 or bins < 1:
        raise UserError(f"units and bins must be at least 1, got {units} and {bins}")
    return FiringAges(jnp.zeros(units, jnp.int32), jnp.zeros(units, bool), jnp.zeros((units, bins), jnp.int32))


def update_ages(state: FiringAges, values: Float[Array, "*batch units"]) -> FiringAges:
    """The state after an update on this batch. values: preactivations, or outputs of a ReLU: a unit fires where > 0.

    Raises `UserError` if the number of units is not the state's.
    """
    x = as_rows(values, "values")
    units, bins = state.histogram.shape
    if x.shape[-1] != units:
        raise UserError(f"values have {x.shape[-1]} units, the state {units}")
    fires = (x > 0).any(axis=0)
    age = state.age + 1
    ended = fires & state.fired
    here = jnp.arange(bins) == jnp.minimum(age, bins)[:, None] - 1
    histogram = state.histogram + (here & ended[:, None])
    return FiringAges(jnp.where(fires, 0, age), state.fired | fires, histogram)


def reset_ages(state: FiringAges, mask: Bool[Array, " units"]) -> FiringAges:
    """The units of the mask start afresh."""
    return FiringAges(jnp.where(mask, 0, state.age), state.fired & ~mask, jnp.where(mask[:, None], 0, state.histogram))


def interval_quantile(state: FiringAges, quantile: Any = 0.98) -> Float[Array, " units"]:
    """Smallest interval that at least this share of a unit's ended intervals do not exceed, in updates.

    Infinite for a unit without ended intervals, so that `state.age >= interval_quantile(state)` is never true of it. A
    value equal to the number of bins stands for that and everything longer.
    """
    counts = jnp.cumsum(state.histogram, axis=1)
    total = counts[:, -1]
    # Compared as counts: a share rounds, a whole number does not. The slack is for quantile * total itself.
    reached = counts >= quantile * total[:, None] * (1 - 1e-6)
    return jnp.where(total > 0, jnp.argmax(reached, axis=1) + 1.0, jnp.inf)


@standalone(
    name="firing_ages",
    unit="updates",
    range=(0, float("inf")),
    cost="elementwise, an update; memory 4 bytes x units x bins",
    reference="Farias & Jozefiak 2024, arXiv:2410.20098",
    records={
        "firing_age_mean": "updates",
        "firing_age_max": "updates",
        "never_fired_units": "share of units",
        "firing_interval_mean": "updates",
    },
)
def age_readings(state: FiringAges) -> dict[str, Scalar]:
    """Scalars of a tracker of inter-firing ages: the mean and the largest age, silent units, the mean interval.

    firing_age_mean, firing_age_max: updates since the last firing, over units. never_fired_units: share of units
    that have not fired since tracking began. firing_interval_mean: over all ended intervals of all units, those in
    the last bin counted as long as that bin; NaN before the first has ended.
    """
    lengths = jnp.arange(1, state.histogram.shape[1] + 1, dtype=jnp.float32)
    counts = jnp.sum(state.histogram.astype(jnp.float32), axis=0)
    return {
        "firing_age_mean": jnp.mean(state.age.astype(jnp.float32)),
        "firing_age_max": jnp.max(state.age).astype(jnp.float32),
        "never_fired_units": jnp.mean(~state.fired, dtype=jnp.float32),
        "firing_interval_mean": jnp.sum(counts * lengths) / jnp.sum(counts),
    }


class Utility(NamedTuple):
    """average: moving average of the contribution, not corrected; age: updates in it."""

    average: Float[Array, " units"]
    age: Int[Array, " units"]


def start_utility(units: int) -> Utility:
    """Units of age 0. Raises `UserError` for fewer than one unit."""
    if units < 1:
        raise UserError(f"units must be at least 1, got {units}")
    return Utility(jnp.zeros(units), jnp.zeros(units, jnp.int32))


def contribution(
    post: Float[Array, "*batch features"], outgoing: Any, activation: Phi = "relu"
) -> Float[Array, " units"]:
    """mean |h| times sum |W_out| of each unit, summed over its features (CReLU) and over all outgoing kernels.

    outgoing: a kernel `[..., inputs, outputs]`, or a list of them. inputs is a multiple of the number of features:
    feature f owns the inputs f, f + features, ... as in Flax's flattened feature maps. Raises `UserError` if it is
    not.
    """
    h = as_rows(post)
    size = jnp.mean(jnp.abs(h), axis=0)
    features = size.shape[0]
    weights: Array = jnp.zeros(features)
    for kernel in outgoing if isinstance(outgoing, Sequence) else [outgoing]:
        w = jnp.abs(as_float(kernel))
        if w.ndim < 2 or w.shape[-2] % features:
            raise UserError(f"an outgoing kernel {w.shape} does not read {features} features on its last axis but one")
        inputs = jnp.sum(w, axis=(*range(w.ndim - 2), w.ndim - 1))
        weights = weights + jnp.sum(inputs.reshape(-1, features), axis=0)
    return jnp.sum(own_features(size * weights, features // width_of(activation)), axis=0)


def update_utility(state: Utility, instantaneous: Float[Array, " units"], decay: Any = 0.99) -> Utility:
    """The state after an update whose `contribution` this is. Raises `UserError` if the number of units differs."""
    if jnp.shape(instantaneous) != state.average.shape:
        raise UserError(f"contribution is shaped {jnp.shape(instantaneous)}, the state {state.average.shape}")
    return Utility(decay * state.average + (1 - decay) * instantaneous, state.age + 1)


def utility(state: Utility, decay: Any = 0.99) -> Float[Array, " units"]:
    """The bias-corrected average, 0 for units of age 0. decay: that of `update_utility`."""
    mass = 1 - jnp.asarray(decay, state.average.dtype) ** state.age
    return jnp.where(state.age > 0, state.average / jnp.where(state.age > 0, mass, 1.0), 0.0)


def reset_utility(state: Utility, mask: Bool[Array, " units"]) -> Utility:
    """The units of the mask are of age 0."""
    return jax.tree.map(lambda x: jnp.where(mask, jnp.zeros_like(x), x), state)


@standalone(
    name="cbp_utility",
    unit="activation x weight",
    range=(0, float("inf")),
    cost="elementwise, an update; memory 8 bytes x units",
    reference="Dohare et al. 2024, doi:10.1038/s41586-024-07711-7",
    records={
        "cbp_utility_mean": "activation x weight",
        "cbp_utility_min": "activation x weight",
        "cbp_utility_max": "activation x weight",
        "unit_age_mean": "updates",
    },
)
def utility_readings(state: Utility, decay: Any = 0.99) -> dict[str, Scalar]:
    """Scalars of a tracker of utilities: their mean, smallest and largest over units, corrected, and the mean age.

    cbp_utility_mean, cbp_utility_min, cbp_utility_max: over units of age 1 and more, NaN if there are none.
    unit_age_mean: in updates, over all units.
    """
    corrected, old = utility(state, decay), state.age > 0
    count = jnp.sum(old)
    none = count == 0
    return {
        "cbp_utility_mean": jnp.sum(jnp.where(old, corrected, 0.0)) / count,
        "cbp_utility_min": jnp.where(none, jnp.nan, jnp.min(jnp.where(old, corrected, jnp.inf))),
        "cbp_utility_max": jnp.where(none, jnp.nan, jnp.max(jnp.where(old, corrected, -jnp.inf))),
        "unit_age_mean": jnp.mean(state.age.astype(jnp.float32)),
    }
