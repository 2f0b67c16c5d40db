"""What gradients can move and how far they can be trusted: GraMa, signal and noise of two batches, directions of steps.

For the batch gradient g (`grads`), g_2 of a disjoint batch of the same size (`grads_2`), update d (`updates`), and the
update before it d' (`previous_updates`):

    GraMa score               G_i = mean over incoming weights of |dL/dW_i|, over its mean over the kernel's units
    gradient inactive units   share of units with G_i <= grama_tau                                        0 .. 1
    gradient signal           <g, g_2>, unbiased for ||E g||^2, so it may come out negative               -inf .. inf
    gradient noise            ||g - g_2||^2 / 2, unbiased for the trace of the covariance of g            0 .. inf
    gradient SNR              signal / noise                                                              -1/2 .. inf
    gradient agreement        <g, g_2> / (||g|| ||g_2||)                                                  -1 .. 1
    optimization readiness    max(signal, 0)^2 / ((||g||^2 + ||g_2||^2) / 2)                              0 .. inf
    update gradient cosine    <d, -g> / (||d|| ||g||): 1 for plain descent                                -1 .. 1
    update previous cosine    <d, d'> / (||d|| ||d'||): negative if steps undo each other                 -1 .. 1

Units of GraMa are the last axis of each kernel (leaves of two or more dimensions), reduced over all other axes:
over inputs, and over kh, kw and inputs of a convolution. The mean of a kernel's scores is 1; in a kernel with an
all-zero gradient all scores are 0, so all units are inactive. The absolute value is of the batch's mean gradient,
so per-sample gradients may cancel, and a unit whose outgoing weights were just reset to zero has score exactly 0.
Whatever kernel is in the tree is counted, that of the output layer too: leave it out if you do not want it. The
network's value is units over units.

Signal, noise and their ratio are for gradients of this batch size: the noise falls as one over it, the signal does
not depend on it. The ratio itself is not unbiased. Readiness is the strength ||E g||^2 times the reliability ||E
g||^2 / E||g||^2: under a smooth loss with constant L, the best step on one batch's gradient gains at least ||E
g||^4 / (2 L E||g||^2). It states the idea of Wang et al. 2026 (gradient strength times gradient reliability) as
this bound, without 1 / (2 L); the paper's own expression may differ by such factors.

All of these are per layer (top-level key) and for the whole tree as one vector. 0 / 0 is 0; NaN stays NaN.

References: GraMa: Liu et al. 2025 (arXiv:2505.24061), threshold as in the ports of it. Readiness: Wang et al. 2026
(arXiv:2605.09044). Signal and noise by disjoint batches: McCandlish et al. 2018 (arXiv:1812.06162), appendix A.
Names collide: "Fisher trace" elsewhere is a mean of squared batch gradients, which holds both signal and noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from plasticity.diagnostics.arrays import Scalar, magnitude, safe_ratio
from plasticity.diagnostics.base import Observation, Reading, diagnostic
from plasticity.diagnostics.norms import as_float, by_layer, difference, norm, read_layers
from plasticity.errors import UserError

_SIGNAL = "McCandlish et al. 2018, arXiv:1812.06162"


def grama_scores(gradient: Float[Array, "*inputs units"]) -> Float[Array, " units"]:
    """Mean |gradient| of each unit's incoming weights over its mean over units; zeros where all is zero."""
    g = jnp.abs(as_float(gradient))
    if g.ndim < 2 or g.size == 0:
        raise UserError(f"a kernel's gradient must be shaped [..., inputs, units] and not be empty, got {g.shape}")
    mean = jnp.mean(g / magnitude(g), axis=tuple(range(g.ndim - 1)))
    layer = jnp.mean(mean)
    return mean / jnp.where(layer > 0, layer, 1.0)


def grama_mask(gradient: Float[Array, "*inputs units"], grama_tau: float = 0.01) -> Bool[Array, " units"]:
    """Units with a GraMa score <= grama_tau; in a kernel without any gradient, all."""
    return grama_scores(gradient) <= grama_tau


def dot(a: Any, b: Any) -> Scalar:
    """Inner product of two trees of one structure; 0 without entries."""
    difference(a, b)
    return _scaled_dot(a, b) * _scale(a) * _scale(b)


def cosine(a: Any, b: Any) -> Scalar:
    """Cosine of the angle between two trees of one structure, 0 if one of them is zero."""
    difference(a, b)
    sizes = _scaled_norm(a) * _scaled_norm(b)
    value = _scaled_dot(a, b) / jnp.where(sizes == 0, 1.0, sizes)
    return jnp.clip(value, -1.0, 1.0)


def signal(a: Any, b: Any) -> Scalar:
    """Unbiased estimate of the squared norm of the expected gradient, from gradients of two disjoint batches."""
    return dot(a, b)


def noise(a: Any, b: Any) -> Scalar:
    """Unbiased estimate of the trace of the batch gradient's covariance, from two disjoint batches of one size."""
    return norm(difference(a, b)) ** 2 / 2


def signal_to_noise(a: Any, b: Any) -> Scalar:
    """`signal` over `noise`, at least -1/2; infinite for equal gradients, 0 if both are zero."""
    scale = jnp.maximum(_scale(a), _scale(b))
    a, b = (jax.tree.map(lambda leaf: as_float(leaf) / scale, tree) for tree in (a, b))
    return safe_ratio(signal(a, b), noise(a, b))


def readiness(a: Any, b: Any) -> Scalar:
    """Gradient strength times reliability, max(signal, 0)^2 over the mean squared norm; 0 if both are zero."""
    strength = jnp.maximum(dot(a, b), 0.0)
    return strength * safe_ratio(strength, (norm(a) ** 2 + norm(b) ** 2) / 2)


def _scale(tree: Any) -> Scalar:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.size(leaf)]
    return magnitude(jnp.stack([jnp.max(jnp.abs(as_float(leaf))) for leaf in leaves])) if leaves else jnp.ones(())


def _scaled_norm(tree: Any) -> Scalar:
    scale = _scale(tree)
    return norm(jax.tree.map(lambda leaf: as_float(leaf) / scale, tree))


def _scaled_dot(a: Any, b: Any) -> Scalar:
    scales = _scale(a), _scale(b)
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    products = (jnp.sum((as_float(x) / scales[0]) * (as_float(y) / scales[1])) for x, y in pairs)
    return sum(products, start=jnp.zeros(()))


@diagnostic(
    name="gradient_inactive_units",
    unit="share of units",
    range=(0, 1),
    needs=("grads",),
    cost="one pass over the gradient",
    reference="GraMa: Liu et al. 2025, arXiv:2505.24061",
)
def _gradient_inactive_units(seen: Observation, *, grama_tau: float = 0.01) -> Reading:
    """Share of units whose incoming weights' mean |gradient| is at most grama_tau times the mean over the kernel."""
    counts: dict[str, tuple[Array, int]] = {}
    for name, leaves in by_layer(seen.grads).items():
        found = [leaf for leaf in leaves if leaf.ndim >= 2 and leaf.size]
        if found:
            inactive = [_finite(leaf, jnp.sum(grama_mask(leaf, grama_tau), dtype=jnp.float32)) for leaf in found]
            counts[name] = sum(inactive, start=jnp.zeros(())), sum(leaf.shape[-1] for leaf in found)
    units = sum(count for _, count in counts.values())
    whole = sum((total for total, _ in counts.values()), start=jnp.zeros(())) / units if units else jnp.array(jnp.nan)
    return Reading(whole, {name: total / count for name, (total, count) in counts.items()})


def _finite(x: Array, value: Array) -> Array:
    return jnp.where(jnp.isfinite(x).all(), value, jnp.nan)


def _two(seen: Observation, measure: Callable[[Any, Any], Array]) -> Reading:
    difference(seen.grads, seen.grads_2)
    return read_layers(measure, seen.grads, seen.grads_2)


@diagnostic(
    name="gradient_signal",
    unit="squared L2 norm",
    range=(-float("inf"), float("inf")),
    needs=("grads", "grads_2"),
    cost="one pass over both gradients",
    reference=_SIGNAL,
)
def _gradient_signal(seen: Observation) -> Reading:
    """Inner product of the gradients of two disjoint batches: unbiased for ||E g||^2, so it may be negative."""
    return _two(seen, signal)


@diagnostic(
    name="gradient_noise",
    unit="squared L2 norm",
    range=(0, float("inf")),
    needs=("grads", "grads_2"),
    cost="one pass over both gradients",
    reference=_SIGNAL,
)
def _gradient_noise(seen: Observation) -> Reading:
    """Half the squared distance of two disjoint batches' gradients: the trace of the batch gradient's covariance."""
    return _two(seen, noise)


@diagnostic(
    name="gradient_snr",
    unit="ratio",
    range=(-0.5001, float("inf")),
    needs=("grads", "grads_2"),
    cost="one pass over both gradients",
    reference=_SIGNAL,
)
def _gradient_snr(seen: Observation) -> Reading:
    """`gradient_signal` over `gradient_noise` at this batch size; around 0 when batches have nothing in common."""
    return _two(seen, signal_to_noise)


@diagnostic(
    name="gradient_agreement",
    unit="cosine",
    range=(-1, 1),
    needs=("grads", "grads_2"),
    cost="one pass over both gradients",
    reference="standard",
)
def _gradient_agreement(seen: Observation) -> Reading:
    """Cosine between the gradients of two disjoint batches."""
    return _two(seen, cosine)


@diagnostic(
    name="optimization_readiness",
    unit="squared L2 norm",
    range=(0, float("inf")),
    needs=("grads", "grads_2"),
    cost="one pass over both gradients",
    reference="after Wang et al. 2026, arXiv:2605.09044",
)
def _optimization_readiness(seen: Observation) -> Reading:
    """Gradient strength ||E g||^2 times reliability ||E g||^2 / E||g||^2: bounds one step's gain, up to 1 / (2 L)."""
    return _two(seen, readiness)


@diagnostic(
    name="update_gradient_cosine",
    unit="cosine",
    range=(-1, 1),
    needs=("updates", "grads"),
    cost="one pass over the update and the gradient",
    reference="standard",
)
def _update_gradient_cosine(seen: Observation) -> Reading:
    """Cosine between the update and the negative gradient: 1 for plain descent, 0 if either is zero."""
    difference(seen.updates, seen.grads)
    return read_layers(lambda a, b: -cosine(a, b), seen.updates, seen.grads)


@diagnostic(
    name="update_previous_cosine",
    unit="cosine",
    range=(-1, 1),
    needs=("updates", "previous_updates"),
    cost="one pass over both updates",
    reference="standard",
)
def _update_previous_cosine(seen: Observation) -> Reading:
    """Cosine between this update and the one before: negative if steps undo each other, 0 if either is zero."""
    difference(seen.updates, seen.previous_updates)
    return read_layers(cosine, seen.updates, seen.previous_updates)
