"""Normalisations that stand before a nonlinearity, by name. z: preactivations, gamma and beta: a learned scale and
offset of each unit (channel), m and v: mean and variance, with divisor N, over

    layer         the units of an example: gamma (z - m) / sqrt(v + 1e-6) + beta (Ba et al. 2016, arXiv:1607.06450)
    rms           the same, without a mean or an offset: gamma z / sqrt(mean z^2 + 1e-6)
                  (Zhang & Sennrich 2019, arXiv:1910.07467)
    group         equal groups of neighbouring units of an example, eps 1e-5 (Wu & He 2018, arXiv:1803.08494)
    batch         the batch, for each unit: gamma (z - m) / sqrt(v + 1e-5) + beta
                  (Ioffe & Szegedy 2015, arXiv:1502.03167)
    batch_renorm  the batch: gamma (r (z - m) / s + d) + beta, s = sqrt(v + 1e-3), R and S the running m and s,
                  r = s / S kept within 1/r_max .. r_max, d = (m - R) / S within -d_max .. d_max, both constants for
                  the gradient (Ioffe 2017, arXiv:1702.03275); r = 1 and d = 0 in the first `warm_up` updates, and
                  eps 1e-3, as CrossQ has it (Bhatt et al. 2024, arXiv:1902.05605)
    hybrid        mean over the batch for each unit, variance over the units of an example, both of z itself:
                  gamma (z - m_batch) / sqrt(v_layer + 1e-5) + beta (Lyle et al. 2024, arXiv:2402.18762, the ablation
                  of axes, in this suite's reading)

In a feature map the positions count as further rows of the batch, and belong to what layer, rms and group average over.
Positions of patches and tokens are rows: layer, rms and group normalise each for itself, and the batch is all of them,
so that in training a sequence model sees later positions through a batch's mean and variance.

What is taken over the batch is the batch's own in training, and a running average everywhere else: after each update
running = momentum running + (1 - momentum) batch's, from 0 for means and 1 for variances. (torch's `momentum` is one
minus this one, and its running variance has divisor N - 1.) The averages are the collection `batch_stats`. No gradient
and no reset of units changes them; a fresh network has fresh ones. They are float32 whatever the compute type.

Batch and batch_renorm take a unit's bias out again in training: it gets no gradient there and keeps its value.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from plasticity.errors import UserError
from plasticity.networks.options import EPSILON, Normalization


def normalize(options: Normalization, name: str, z: jax.Array, train: bool) -> jax.Array:
    """`z[rows, (height, width,) units]` normalised by a submodule called `name`; to be called in a compact module.

    Raises `UserError` where units cannot be split into the groups asked for.
    """
    kind, units = options.kind, z.shape[-1]
    if kind == "none":
        return z
    # The two-pass variance: preactivations with a large mean are what this suite is about.
    own = {"name": name, "epsilon": EPSILON[kind], "dtype": z.dtype, "use_fast_variance": False}
    axes = tuple(range(1, z.ndim))
    if kind == "layer":
        return nn.LayerNorm(reduction_axes=axes, **own)(z)
    if kind == "rms":
        return nn.RMSNorm(reduction_axes=axes, **own)(z)
    if kind == "group":
        if units % options.groups:
            raise UserError(f"{name}: {units} units cannot be split into {options.groups} groups of equal size")
        if z.ndim == 2 and units == options.groups:
            raise UserError(f"{name}: {units} units in {options.groups} groups: a group of one value is always zero")
        return nn.GroupNorm(options.groups, **own)(z)
    return _OverBatch(options, name=name)(z, train)


class _OverBatch(nn.Module):
    """Batch norm, batch renorm and the hybrid: with running averages."""

    options: Normalization

    @nn.compact
    def __call__(self, z: jax.Array, train: bool) -> jax.Array:
        options, kind, units = self.options, self.options.kind, (z.shape[-1],)
        eps, hybrid = EPSILON[kind], kind == "hybrid"
        scale = self.param("scale", nn.initializers.ones, units)
        bias = self.param("bias", nn.initializers.zeros, units)
        averages = {"mean": self.variable("batch_stats", "mean", jnp.zeros, units)}
        if not hybrid:
            averages["var"] = self.variable("batch_stats", "var", jnp.ones, units)
        count = self.variable("batch_stats", "count", jnp.zeros, (), jnp.int32) if kind == "batch_renorm" else None

        x, rows = z.astype(jnp.float32), tuple(range(z.ndim - 1))
        old = {name: average.value for name, average in averages.items()}
        now = {"mean": jnp.mean(x, rows), "var": jnp.var(x, rows)} if train else old
        var = jnp.var(x, tuple(range(1, z.ndim)), keepdims=True) if hybrid else now["var"]
        y = (x - now["mean"]) / jnp.sqrt(var + eps)
        if count is not None and train:
            running_s = jnp.sqrt(old["var"] + eps)
            r = jnp.clip(jnp.sqrt(var + eps) / running_s, 1 / options.r_max, options.r_max)
            d = jnp.clip((now["mean"] - old["mean"]) / running_s, -options.d_max, options.d_max)
            warm = count.value >= options.warm_up
            r, d = jax.lax.stop_gradient((jnp.where(warm, r, 1.0), jnp.where(warm, d, 0.0)))
            y = y * r + d
        # A pass in training whose state nobody keeps (a loss at a perturbed point) changes nothing.
        if train and self.is_mutable_collection("batch_stats"):
            for name, average in averages.items():
                average.value = options.momentum * old[name] + (1 - options.momentum) * now[name]
            if count is not None:
                count.value = count.value + 1
        return (y * scale + bias).astype(z.dtype)
