"""Many games at once: interquartile mean, median, mean, optimality gap and performance profile over runs x games.

All of one combination's scores are pooled, one number a run; scores must share a scale (human-normalised: 0 is random
play, 1 a human). As in Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice", arXiv:2108.13264:

    IQM             mean of the middle half of all runs x games
    median, mean    over games, of the mean over runs
    optimality gap  1 - mean of min(score, 1) over runs x games: how far from a human, whatever is gained elsewhere
    profile(tau)    share of runs x games with score > tau

Intervals are percentiles of a stratified bootstrap: seeds are resampled with replacement within each game, never the
games. This is the field's convention; unlike `analysis.stats` it does not expand intervals for few seeds, which many
games make up for in part. One run a game cannot be resampled: the limits are then NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from analysis.stats import LEVEL, Estimate, iqm

REPS = 2_000

Strata = Sequence[np.ndarray]
"""One array a game, [..., runs of the game]; leading axes are resamples and agree between games."""

Statistic = Callable[[Strata], np.ndarray]


def describe(level: float = LEVEL) -> str:
    """The interval in words, for captions."""
    return (
        f"Intervals are {level:.0%} percentile intervals of a stratified bootstrap ({REPS:,} resamples of the seeds "
        "within each game; Agarwal et al. 2021); they are not expanded for few seeds."
    )


def pooled_iqm(strata: Strata) -> np.ndarray:
    """Interquartile mean over all runs of all games."""
    return iqm(np.concatenate(strata, axis=-1))


def median(strata: Strata) -> np.ndarray:
    """Median over games of the mean over runs."""
    return np.median(np.stack([x.mean(-1) for x in strata], -1), axis=-1)


def mean(strata: Strata) -> np.ndarray:
    """Mean over games of the mean over runs."""
    return np.stack([x.mean(-1) for x in strata], -1).mean(-1)


def optimality_gap(strata: Strata) -> np.ndarray:
    """1 - mean of min(score, 1) over all runs of all games."""
    return 1.0 - np.minimum(np.concatenate(strata, axis=-1), 1.0).mean(-1)


def resampled(strata: Strata, reps: int = REPS) -> list[np.ndarray]:
    """Each game's runs drawn with replacement, [reps, runs]; the same draw for the same numbers of runs."""
    drawn = []
    for k, x in enumerate(strata):
        picks = np.random.default_rng([x.shape[-1], k, 20210831]).integers(0, x.shape[-1], (reps, x.shape[-1]))
        drawn.append(x[picks])
    return drawn


def estimate(strata: Strata, statistic: Statistic = pooled_iqm, level: float = LEVEL) -> Estimate:
    """A statistic with its interval. n: the smallest number of runs of a game."""
    sizes = [x.shape[-1] for x in strata]
    if not sizes or min(sizes) == 0:
        return Estimate(np.nan, np.nan, np.nan, 0, level)
    value = float(statistic(strata))
    if max(sizes) < 2:
        return Estimate(value, np.nan, np.nan, 1, level)
    low, high = np.quantile(statistic(resampled(strata)), [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(value, float(low), float(high), min(sizes), level)


def profile(strata: Strata, taus: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(share, low, high), each [taus]: share of runs x games with score > tau, with pointwise bands."""
    pool = np.concatenate(strata)
    share = (pool > taus[:, None]).mean(-1)
    if max(x.size for x in strata) < 2:
        return share, np.full(taus.shape, np.nan), np.full(taus.shape, np.nan)
    drawn = np.concatenate(resampled(strata), axis=-1)
    tails = [0.5 - level / 2, 0.5 + level / 2]
    limits = np.array([np.quantile((drawn > tau).mean(-1), tails) for tau in taus])
    return share, limits[:, 0], limits[:, 1]
