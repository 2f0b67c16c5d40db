"""Steps to a threshold, of runs that may never reach it, and their mean.

A run that has not reached the threshold when its budget ends took *at least* so many steps: its number is censored.
Leaving such runs out, or counting the cap as if it had been enough, makes slow learners look fast. The restricted mean
counts each run up to a common limit, E min(T, limit): the area under the estimate of Kaplan & Meier 1958
(doi:10.1080/01621459.1958.10501452) of the share of runs that are not there yet (Royston & Parmar 2013,
doi:10.1186/1471-2288-13-152).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from plasticity.diagnostics.standalone import standalone
from plasticity.errors import UserError


class StepsTo(NamedTuple):
    """steps: at which the threshold was first met, or the last point where censored, in the unit of `steps`."""

    steps: Float[Array, "*runs"]
    censored: Bool[Array, "*runs"]


class RestrictedMean(NamedTuple):
    """mean: of min(T, limit), in steps. error: its standard error. censored: share of runs that did not get there."""

    mean: Float[Array, ""]
    error: Float[Array, ""]
    censored: Float[Array, ""]


@standalone(
    name="steps_to_threshold",
    unit="steps",
    range=(0.0, math.inf),
    cost="none, given the scores over training",
    reference="as a measure of plasticity: Shin et al. 2024, arXiv:2410.23495",
)
def steps_to_threshold(
    scores: Float[Array, "*runs points"], steps: Float[Array, " points"], threshold: Any, *, below: bool = False
) -> StepsTo:
    """Steps until a score first reaches a threshold, and whether it never did.

    scores: at measured points, `[..., points]`. steps: of these points, ascending. threshold: met from above, score >=
    threshold; with below=True from below, for losses.

    NaN meets no threshold, so a run that diverges before it gets there is censored at the last point. The resolution
    is the distance between points. One point is allowed.

    Name collisions: published counts are of epochs, of tasks' steps, or of a running mean that lags; and most leave
    out, or cap, the runs that never arrive.
    """
    scores, steps = jnp.asarray(scores), jnp.asarray(steps)
    if scores.ndim < 1 or steps.shape != scores.shape[-1:] or steps.size == 0:
        raise UserError(f"scores [..., points] and steps [points] must fit, got {scores.shape} and {steps.shape}")
    met = scores <= threshold if below else scores >= threshold
    reached = met.any(axis=-1)
    return StepsTo(jnp.where(reached, steps[jnp.argmax(met, axis=-1)], steps[-1]), ~reached)


def restricted_mean_steps(steps: Float[Array, " runs"], censored: Bool[Array, " runs"], limit: Any) -> RestrictedMean:
    """Mean steps of runs, each counted up to `limit`, given which of them are censored.

    steps, censored: `[runs]`, as from `steps_to_threshold`. limit: in steps, the same for what is compared; the
    smallest budget among the runs is a good one. In 0 .. limit. The error is Greenwood's, which is 0 if all runs agree.

    Where every run was followed up to the limit this is the mean of min(steps, limit). NaN if a number is, and where
    the data do not reach: the last run was censored before the limit, so nobody knows the area beyond it.
    """
    steps, censored = jnp.asarray(steps), jnp.asarray(censored, bool)
    if steps.ndim != 1 or steps.size == 0 or steps.shape != censored.shape:
        raise UserError(f"steps and censored must be two [runs] of one length, got {steps.shape} and {censored.shape}")
    times = steps.astype(jnp.promote_types(steps.dtype, jnp.float32))
    # At equal times those that arrive come first: a censored run was still on its way then.
    order = jnp.lexsort((censored, times))
    sorted_times, arrived = times[order], ~censored[order]
    capped = jnp.minimum(sorted_times, limit)
    event = arrived & (sorted_times <= limit)
    count = times.size
    at_risk = jnp.arange(count, 0, -1)
    survival = jnp.cumprod(jnp.where(event, 1 - 1 / at_risk, 1.0))
    # Survival is 1 until the first time, then constant from each time to the next, the last one up to the limit.
    width = jnp.diff(capped, append=jnp.asarray(limit, capped.dtype))
    pieces = survival * width
    mean = capped[0] + pieces.sum()
    area_after = jnp.cumsum(pieces[::-1])[::-1]
    # The last run's arrival leaves no area after it, and its term would be 0 / 0.
    risk = at_risk * jnp.maximum(at_risk - 1, 1)
    error = jnp.sqrt(jnp.sum(jnp.where(event, jnp.square(area_after) / risk, 0.0)))
    known = jnp.isfinite(times).all() & ((sorted_times[-1] >= limit) | arrived[-1])
    return RestrictedMean(jnp.where(known, mean, jnp.nan), jnp.where(known, error, jnp.nan), jnp.mean(~event))
