"""Spectral regularisation: a penalty that keeps the largest singular value of every weight matrix near 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from plasticity.config import static, traced
from plasticity.mitigations.base import Context, Learner, Mitigation, mitigations
from plasticity.mitigations.compose import remembering
from plasticity.mitigations.penalties import matrix, roles
from plasticity.network import Network, Params, get_at

#: Below this a product of the iteration counts as zero, and the vectors stay as they are.
TINY = 1e-30


class Vectors(NamedTuple):
    """Estimates of a matrix's first singular vectors. u: output side `[out]`; v: input side `[in]`."""

    u: jax.Array
    v: jax.Array


def iterate(kernel: jax.Array, u: jax.Array, v: jax.Array) -> Vectors:
    """One step of power iteration on a kernel `[..., in, out]`: v <- W^T u / |.|, then u <- W v / |.|."""

    def unit(new: jax.Array, old: jax.Array) -> jax.Array:
        norm = jnp.linalg.norm(new)
        return jnp.where(norm > TINY, new / jnp.maximum(norm, TINY), old)

    w = matrix(kernel)
    v = unit(w @ u, v)
    return Vectors(unit(v @ w, u), v)


@mitigations.register("spectral_reg")
class SpectralReg(Mitigation):
    """strength ( sum_W (sigma_max(W)^k - 1)^2 + sum_b |b|^(2k) + sum_gamma sum_i (gamma_i^k - 1)^2 ).

    W runs over all weight matrices, the output layer's too, a convolution's as out x (in kh kw); b over biases and
    offsets of normalisations; gamma over scales of normalisations, each a diagonal matrix that is held to 1 entry by
    entry (the source keeps its one largest; a choice of this suite). sigma_max is u^T W v, with u and v from one step
    of power iteration an update, carried in the member's memory. They are constants of the penalty, u^T W v is not: its
    gradient in W is u v^T. At initialisation u is one step away from a fixed random draw. After a reset of units the
    estimate recovers within a few updates. k = 2 is the source's; the strength is this suite's default.
    """

    reference = "Lewandowski et al. 2024, arXiv:2406.06811 (k = 2)"
    cost = "three products of each weight matrix with a vector an update"
    stage = "penalty"

    strength: float = traced(1e-4, ge=0, positional=True, help="coefficient")
    k: int = static(2, ge=1, help="power of the singular value")

    def neutral(self) -> Self:
        return type(self)(strength=0.0, k=self.k)

    def memory(self, variables: Mapping[str, Any], network: Network) -> dict[str, Vectors]:
        params, found = variables["params"], {}
        for number, path in enumerate(roles(params, network).weights):
            w = get_at(params, path)
            # Not of the run's own streams: the draw only has to be no eigenvector by accident.
            start = jax.random.normal(jax.random.key(number), (w.shape[-1],))
            found["/".join(path)] = iterate(w, start / jnp.linalg.norm(start), jnp.zeros(w.size // w.shape[-1]))
        return found

    def penalty(self, params: Params, context: Context) -> jax.Array:
        memory, found = context.need("memory", self.name), roles(params, context.network)
        total = jnp.zeros(())
        for path in found.weights:
            u, v = jax.lax.stop_gradient(memory["/".join(path)])
            sigma = v @ matrix(get_at(params, path)) @ u
            total += jnp.square(sigma**self.k - 1)
        for path in (*found.biases, *found.offsets):
            total += jnp.sum(jnp.square(get_at(params, path))) ** self.k
        for path in found.gains:
            total += jnp.sum(jnp.square(get_at(params, path) ** self.k - 1))
        return self.strength * total

    def after_update(self, learner: Learner, context: Context) -> Learner:
        params, memory = learner.variables["params"], context.need("memory", self.name)
        stepped = {name: iterate(get_at(params, tuple(name.split("/"))), *old) for name, old in memory.items()}
        return remembering(learner, self.name, stepped)
