"""Interquartile means over seeds and their bootstrap intervals, for very few seeds and very many numbers at once.

Interquartile mean (IQM): mean of what is left after a quarter of the values, rounded down, is cut off at each
end; `scipy.stats.trim_mean(x, 0.25)`. Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice",
arXiv:2108.13264.

Interval: percentile bootstrap over seeds, *expanded* for small n (Hesterberg 2015, "What teachers should know
about the bootstrap", doi:10.1080/00031305.2015.1089789): tail probability alpha'/2 = Phi(-sqrt(n/(n-1))
t_{alpha/2, n-1}) in place of alpha/2, because a bootstrap of n values is too narrow by sqrt((n-1)/n) and knows no
t distribution.

No resample leaves the range of the data, and the range of n values misses a centre with probability 2^(1-n). So
where 2^(1-n) > alpha (n < 6 at 95 %) no percentile can reach the level, and the interval is estimate +-
t_{alpha/2, n-1} * sqrt(n/(n-1)) * bootstrap standard error (same paper, section 5: t interval with bootstrap
standard error). At n = 3 this is Student's interval of the mean. The tests hold both to their nominal coverage.

Everything is deterministic: up to n = 7 all resamples are enumerated with their probabilities (exact bootstrap),
above that they are drawn from a fixed seed and applied to *sorted* values, so that the order of the seeds is
irrelevant. Sorting once makes the IQM of a resample linear in the values: the bootstrap of many groups is one
matrix product.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95
EXACT_UP_TO = 7  # 1,716 distinct resamples of 7 values, 6,435 of 8
RESAMPLES = 5_000


class Estimate(NamedTuple):
    """An estimate with its interval. n: number of seeds behind it (the smallest number, if over several tasks)."""

    value: float
    low: float
    high: float
    n: int
    level: float


def iqm(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """Interquartile mean along an axis; NaN where any value is NaN."""
    x = np.sort(np.moveaxis(np.asarray(x, float), axis, -1), axis=-1)
    n = x.shape[-1]
    cut = n // 4
    inner = x[..., cut : n - cut].mean(-1)
    # NaN sorts last and would be cut off silently.
    return np.where(np.isnan(x[..., -1]), np.nan, inner)


def describe_method(level: float = LEVEL, worst: str = "scores 0") -> str:
    """The interval in words, for captions. worst: what a diverged run does (`Terms.worst_at_length`)."""
    return (
        f"Lines and points are interquartile means over seeds; intervals are {level:.0%} bootstrap intervals over "
        "seeds with small-sample expansion (Hesterberg 2015), as t intervals with bootstrap standard error where "
        "there are too few seeds for a percentile to reach the level. A run that diverged "
        f"{worst} from there on."
    )


@functools.lru_cache(maxsize=64)
def _plan(n: int, stream: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(weights [n, R], probability [R]): sorted values @ weights = IQM of each resample."""
    if n <= EXACT_UP_TO:
        picks = np.array(list(itertools.combinations_with_replacement(range(n), n)))
        counts = np.stack([(picks == i).sum(1) for i in range(n)], 1)
        ways = [math.factorial(n) / math.prod(math.factorial(k) for k in row) for row in counts.tolist()]
        probability = np.array(ways) / float(n) ** n
    else:
        rng = np.random.default_rng([n, stream, 20150505])
        picks = np.sort(rng.integers(0, n, size=(RESAMPLES, n)), axis=1)
        probability = np.full(RESAMPLES, 1.0 / RESAMPLES)
    cut = n // 4
    inner = picks[:, cut : n - cut]
    weights = np.stack([(inner == i).sum(1) for i in range(n)]) / inner.shape[1]
    return weights, probability


def _tails(n: int, freedom: int, level: float) -> tuple[float, float]:
    """(expanded tail probability, multiplier of the bootstrap standard error)."""
    t = stats.t.ppf(0.5 + level / 2, freedom) * math.sqrt(n / (n - 1))
    return float(stats.norm.cdf(-t)), float(t)


def _limits(
    boot: np.ndarray, probability: np.ndarray, value: np.ndarray, n: int, freedom: int, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper limits from a bootstrap distribution `boot` [groups, R] of `value` [groups]."""
    tail, t = _tails(n, freedom, level)
    if 2.0**-freedom > 1 - level + 1e-12:
        centre = boot @ probability
        error = np.sqrt(np.maximum(((boot - centre[:, None]) ** 2) @ probability, 0.0))
        return value - t * error, value + t * error
    order = np.argsort(boot, axis=1)
    ranked = np.take_along_axis(boot, order, 1)
    mass = np.cumsum(probability[order], axis=1)
    rows = np.arange(len(boot))
    last = boot.shape[1] - 1
    # Inverse distribution function from either end, so that mirrored data give the mirrored interval.
    low = np.minimum((mass < tail - 1e-12).sum(1), last)
    high = np.minimum((mass <= 1 - tail + 1e-12).sum(1), last)
    return ranked[rows, low], ranked[rows, high]


def interval(x: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """IQM over the last axis with its interval: three arrays of shape x.shape[:-1].

    x: [..., n], n values from n seeds. With one value the limits are NaN; NaN in, NaN out.
    """
    x = np.sort(np.asarray(x, float), axis=-1)
    shape, n = x.shape[:-1], x.shape[-1]
    value = iqm(x)
    if n < 2:
        return value, np.full(shape, np.nan), np.full(shape, np.nan)
    flat, centre = x.reshape(-1, n), value.reshape(-1)
    weights, probability = _plan(n)
    low, high = np.empty(len(flat)), np.empty(len(flat))
    block = max(1, 4_000_000 // len(probability))
    for i in range(0, len(flat), block):
        part = slice(i, i + block)
        # Centred first: equal values then have an interval of exactly no width.
        boot = (flat[part] - centre[part, None]) @ weights
        low[part], high[part] = _limits(boot, probability, np.zeros(len(boot)), n, n - 1, level)
    return value, (centre + low).reshape(shape), (centre + high).reshape(shape)


def estimate(x: Sequence[float] | np.ndarray, level: float = LEVEL) -> Estimate:
    """IQM of one sample over seeds, with its interval. An empty sample gives NaN."""
    x = np.asarray(x, float)
    if x.size == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, level)
    value, low, high = interval(x, level)
    return Estimate(float(value), float(low), float(high), x.size, level)


def stratified(strata: Sequence[np.ndarray], level: float = LEVEL) -> Estimate:
    """Mean over strata (tasks) of the IQM over seeds, resampled within each stratum.

    Every task weighs the same, so that failing on one is not trimmed away as an outlier.
    """
    strata = [np.sort(np.asarray(x, float)) for x in strata]
    if len(strata) == 1:
        return estimate(strata[0], level)
    sizes = [x.size for x in strata]
    if not strata or min(sizes) == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, level)
    value = float(np.mean([iqm(x) for x in strata]))
    n = min(sizes)
    if n < 2:
        return Estimate(value, math.nan, math.nan, n, level)
    boot = np.zeros(RESAMPLES)
    for k, x in enumerate(strata):
        rng = np.random.default_rng([x.size, k, 20150506])
        weights, probability = _plan(x.size, k)
        draw = rng.choice(len(probability), size=RESAMPLES, p=probability)
        boot += (x - iqm(x)) @ weights[:, draw] / len(strata)
    flat = np.full(RESAMPLES, 1.0 / RESAMPLES)
    low, high = _limits(boot[None], flat, np.zeros(1), n, sum(sizes) - len(sizes), level)
    return Estimate(value, value + float(low[0]), value + float(high[0]), n, level)


def summarise(frame: pd.DataFrame, by: list[str], value: str = "value", level: float = LEVEL) -> pd.DataFrame:
    """One row a group of `by`, in order: value (IQM), low, high, n. Rows are seeds; NaN values are left out."""
    frame = frame.loc[np.isfinite(frame[value].to_numpy(float)), [*by, value]]
    groups = frame.groupby(by, sort=True, observed=True)
    out = groups.size().rename("n").reset_index()
    code = groups.ngroup().to_numpy()
    order = np.argsort(code, kind="stable")
    values = frame[value].to_numpy(float)[order]
    sizes = out["n"].to_numpy()
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(int)
    columns = {name: np.full(len(out), np.nan) for name in (value, "low", "high")}
    for n in np.unique(sizes):
        rows = np.flatnonzero(sizes == n)
        sample = values[starts[rows, None] + np.arange(n)]
        columns[value][rows], columns["low"][rows], columns["high"][rows] = interval(sample, level)
    return out.assign(**columns)[[*by, value, "low", "high", "n"]]
