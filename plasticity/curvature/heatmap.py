"""Data for a heat map of a Gram matrix: in which order to show its inputs, so that blocks become visible.

By label, or by cluster: k-means of the rows (Lloyd's iterations from centres that are chosen farthest-first, so no key
is needed), clusters in descending order of their size. Lyle et al. 2023 (arXiv:2303.01486) sort the rows of 512
gradients by k-means with k = 10; Lyle et al. 2024 (arXiv:2402.18762), figure 3, show kernels of 64 inputs.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from plasticity.curvature.kernel import square
from plasticity.diagnostics.base import magnitude
from plasticity.diagnostics.standalone import standalone
from plasticity.errors import UserError


class HeatMap(NamedTuple):
    """matrix: the kernel, reordered. order: which input stands where. groups: label or cluster of each, ascending."""

    matrix: Float[Array, "n n"]
    order: Int[Array, " n"]
    groups: Int[Array, " n"]


@standalone(
    name="kernel_heat_map",
    unit="as the kernel",
    range=(float("-inf"), float("inf")),
    cost="n^2 * clusters operations an iteration",
    reference="Lyle et al. 2023, arXiv:2303.01486",
)
def kernel_heat_map(
    kernel: Float[Array, "n n"], labels: Int[Array, " n"] | None = None, clusters: int = 10, iterations: int = 20
) -> HeatMap:
    """A Gram matrix with its inputs ordered by label, or without labels by cluster.

    Within a group inputs keep their order. clusters: at most, and no more than inputs. NaN in the matrix stays where it
    is; the order then means nothing.
    """
    k = square(kernel)
    n = k.shape[0]
    if labels is not None:
        groups = jnp.asarray(labels)
        if groups.shape != (n,):
            raise UserError(f"labels must be one for each of the {n} inputs, got the shape {groups.shape}")
    else:
        if clusters < 1:
            raise UserError(f"clusters must be at least 1, got {clusters}")
        groups = _cluster(k / magnitude(k), min(clusters, n), iterations)
    order = jnp.argsort(groups, stable=True)
    return HeatMap(k[order][:, order], order, groups[order])


def _cluster(rows: Float[Array, "n n"], clusters: int, iterations: int) -> Int[Array, " n"]:
    """The cluster of each row, numbered by descending size."""

    def distances(centres: Array) -> Array:
        products = jnp.matmul(rows, centres.T, precision="highest")
        return jnp.sum(rows**2, 1)[:, None] - 2 * products + jnp.sum(centres**2, 1)

    def farthest(carry: tuple[Array, Array], _: None):
        nearest, row = carry
        nearest = jnp.minimum(nearest, jnp.sum((rows - rows[row]) ** 2, 1))
        return (nearest, jnp.argmax(nearest)), rows[row]

    def move(centres: Array, _: None) -> tuple[Array, None]:
        member = jax.nn.one_hot(jnp.argmin(distances(centres), 1), clusters, dtype=rows.dtype)
        number = jnp.sum(member, 0)[:, None]
        # A centre that has lost all rows stays where it is.
        moved = jnp.matmul(member.T, rows, precision="highest") / jnp.maximum(number, 1)
        return jnp.where(number > 0, moved, centres), None

    start = jnp.full(rows.shape[0], jnp.inf, rows.dtype), jnp.argmax(jnp.sum(rows**2, 1))
    _, centres = jax.lax.scan(farthest, start, None, length=clusters)
    centres, _ = jax.lax.scan(move, centres, None, length=iterations)
    found = jnp.argmin(distances(centres), 1)
    size = jnp.bincount(found, length=clusters)
    return jnp.argsort(jnp.argsort(-size))[found]
