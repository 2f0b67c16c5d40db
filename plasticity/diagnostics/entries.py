"""The distribution of entries: L1 norms, exact zeros, moments of weights, distance to init without regard to places.

    weight / gradient / update L1 norm      sum |x|                                         0 .. inf
    weight / gradient / update zero share   share of entries with x = 0, exactly            0 .. 1
    weight mean, std, skewness, excess kurtosis    moments of all kernel entries            see `arrays.moments`
    sorted distance from init    sqrt(sum over leaves of ||sort theta - sort theta_0||^2)   0 .. distance from init

A layer is what hangs on one top-level key of the tree. L1 norms and zero shares are over all its entries, biases
and normalisation included, as in `norms`; one minus the zero share is the L0 norm per entry. Moments are over
kernels only (leaves of two or more dimensions), because biases at zero and scales at one are distributions of their
own; a layer without kernels has none. The network's value takes all entries together, not the mean over layers.

The sorted distance is sqrt(entries) times the 2-Wasserstein distance between the values of a leaf now and at the start,
leaf by leaf. Permuting the entries of a leaf changes nothing, and it is at most `distance_from_init`. The regulariser
of the same name is its square.

A zero gradient on an entry means that this batch does not move it: a dead unit's incoming weights, a reset unit's
before its outgoing ones have grown. Zeros that come from underflow count too. NaN is not zero, but one NaN makes
the value NaN; without entries a zero share is NaN and an L1 norm is 0. Cost: a pass over the entries; the sorted
distance, a sort.

References: L0 and L1: Elsayed & Mahmood 2024 (arXiv:2404.00781), statistics of its code; zero gradients: Lee et al.
2023, PLASTIC (arXiv:2306.10711); sorted distance: Lewandowski et al. 2023 (arXiv:2312.00246).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from plasticity.diagnostics.arrays import Moments, Scalar, moments
from plasticity.diagnostics.base import Observation, Reading, diagnostic
from plasticity.diagnostics.norms import as_float, difference, norm, read_layers
from plasticity.diagnostics.weights import kernels

_UPGD = "Elsayed & Mahmood 2024, arXiv:2404.00781"
_L0 = "Lee et al. 2023, arXiv:2306.10711"


def l1_norm(tree: Any) -> Scalar:
    """Sum of |entry| over all entries of a tree; 0 without entries."""
    return sum((jnp.sum(jnp.abs(as_float(leaf))) for leaf in jax.tree.leaves(tree)), start=jnp.zeros(()))


def zero_share(tree: Any) -> Scalar:
    """Share of entries of a tree that are exactly zero; NaN without entries, and if an entry is NaN or infinite."""
    leaves = [as_float(leaf) for leaf in jax.tree.leaves(tree)]
    entries = sum(leaf.size for leaf in leaves)
    if not entries:
        return jnp.array(jnp.nan)
    # Shares of leaves, weighed: a float32 sum of ones stops at 2^24.
    share = sum(jnp.mean(leaf == 0, dtype=jnp.float32) * (leaf.size / entries) for leaf in leaves if leaf.size)
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()
    return jnp.where(finite, share, jnp.nan)


def sorted_distance(a: Any, b: Any) -> Scalar:
    """L2 distance of two trees whose leaves are sorted first. Raises `UserError` if structures or shapes differ."""
    difference(a, b)

    def sort(leaf: Any) -> Array:
        return jnp.sort(as_float(leaf).ravel())

    return norm(jax.tree.map(lambda x, y: sort(x) - sort(y), a, b))


@diagnostic(
    name="weight_l1_norm",
    unit="L1 norm",
    range=(0, float("inf")),
    needs=("params",),
    cost="one pass over the parameters",
    reference=_UPGD,
)
def _weight_l1_norm(seen: Observation) -> Reading:
    """Sum of |theta| over the parameters, biases and normalisation included."""
    return read_layers(l1_norm, seen.params)


@diagnostic(
    name="weight_zero_share",
    unit="share of entries",
    range=(0, 1),
    needs=("params",),
    cost="one pass over the parameters",
    reference=_UPGD,
)
def _weight_zero_share(seen: Observation) -> Reading:
    """Share of parameters that are exactly zero, biases included; one minus it is the L0 norm per entry."""
    return read_layers(zero_share, seen.params)


@diagnostic(
    name="gradient_l1_norm",
    unit="L1 norm",
    range=(0, float("inf")),
    needs=("grads",),
    cost="one pass over the gradient",
    reference=_UPGD,
)
def _gradient_l1_norm(seen: Observation) -> Reading:
    """Sum of |g| over the gradient as passed."""
    return read_layers(l1_norm, seen.grads)


@diagnostic(
    name="gradient_zero_share",
    unit="share of entries",
    range=(0, 1),
    needs=("grads",),
    cost="one pass over the gradient",
    reference=_L0,
)
def _gradient_zero_share(seen: Observation) -> Reading:
    """Share of the gradient's entries that are exactly zero."""
    return read_layers(zero_share, seen.grads)


@diagnostic(
    name="update_l1_norm",
    unit="L1 norm",
    range=(0, float("inf")),
    needs=("updates",),
    cost="one pass over the update",
    reference=_UPGD,
)
def _update_l1_norm(seen: Observation) -> Reading:
    """Sum of |delta theta| over the update as passed."""
    return read_layers(l1_norm, seen.updates)


@diagnostic(
    name="update_zero_share",
    unit="share of entries",
    range=(0, 1),
    needs=("updates",),
    cost="one pass over the update",
    reference=_UPGD,
)
def _update_zero_share(seen: Observation) -> Reading:
    """Share of the update's entries that are exactly zero."""
    return read_layers(zero_share, seen.updates)


@diagnostic(
    name="sorted_distance_from_init",
    unit="L2 norm",
    range=(0, float("inf")),
    needs=("params", "initial_params"),
    cost="a sort of the parameters",
    reference="Lewandowski et al. 2023, arXiv:2312.00246",
)
def _sorted_distance_from_init(seen: Observation) -> Reading:
    """L2 distance from `initial_params` after sorting the entries of each leaf: how far the distribution has moved."""
    return read_layers(sorted_distance, seen.params, seen.initial_params)


def _moments(seen: Observation) -> tuple[Moments, dict[str, Moments]]:
    by_name = seen.once(kernels)
    return moments([w for own in by_name.values() for w in own]), {name: moments(own) for name, own in by_name.items()}


def _pick(seen: Observation, field: str) -> Reading:
    whole, layers = seen.once(_moments)
    return Reading(getattr(whole, field), {name: getattr(own, field) for name, own in layers.items()})


@diagnostic(
    name="weight_mean",
    unit="weight",
    range=(-float("inf"), float("inf")),
    needs=("params",),
    cost="two passes over the kernels",
    reference="standard",
)
def _weight_mean(seen: Observation) -> Reading:
    """Mean of the kernels' entries."""
    return _pick(seen, "mean")


@diagnostic(
    name="weight_std",
    unit="weight",
    range=(0, float("inf")),
    needs=("params",),
    cost="two passes over the kernels",
    reference="standard",
)
def _weight_std(seen: Observation) -> Reading:
    """Standard deviation (divisor N) of the kernels' entries."""
    return _pick(seen, "std")


@diagnostic(
    name="weight_skewness",
    unit="1",
    range=(-float("inf"), float("inf")),
    needs=("params",),
    cost="two passes over the kernels",
    reference="standard",
)
def _weight_skewness(seen: Observation) -> Reading:
    """Skewness of the kernels' entries, 0 if symmetric or constant."""
    return _pick(seen, "skewness")


@diagnostic(
    name="weight_excess_kurtosis",
    unit="1",
    range=(-2.001, float("inf")),
    needs=("params",),
    cost="two passes over the kernels",
    reference="standard",
)
def _weight_excess_kurtosis(seen: Observation) -> Reading:
    """Excess kurtosis of the kernels' entries, 0 if Gaussian or constant; positive: heavy tails."""
    return _pick(seen, "excess_kurtosis")
