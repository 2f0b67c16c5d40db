"""Exact sampling in proportion to weights: leaves in blocks, and the sum of every block.

Leaves w are kept as a matrix `[blocks, block]` next to their row sums s. To draw, pick block b with probability s_b /
Σs, then a leaf inside it with w_bi / s_b. To write, scatter the leaves and *sum the touched blocks again*. Nothing is
ever added to an old sum, so sums cannot drift, which in float32 they do in sum trees that propagate differences: those
begin to return empty leaves (Schaul et al. 2016, arXiv:1511.05952, use such a tree). The cost is of the order of
√(leaves) additions, in a handful of kernels and without a chain of log₂(leaves) dependent steps.

A leaf of 0 is never drawn while another is positive.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from rl.replay.write import once, put


class Blocks(NamedTuple):
    """leaf: weights, 0 where nothing may be drawn. sums: of the blocks. peak: the largest leaf ever written."""

    leaf: Float[Array, "blocks block"]
    sums: Float[Array, " blocks"]
    peak: Float[Array, ""]


def zeros(blocks: int, block: int) -> Blocks:
    """No leaf can be drawn; the first new one gets weight 1."""
    return Blocks(jnp.zeros((blocks, block)), jnp.zeros(blocks), jnp.ones(()))


def put_runs(
    blocks: Blocks,
    first: Int[Array, ""],
    second: Int[Array, ""],
    values: tuple[Float[Array, " run"], Float[Array, " run"]],
) -> Blocks:
    """Write two runs of consecutive leaves, each inside one block and apart, at flat indices `first` and `second`."""
    size, run = blocks.leaf.shape[1], values[0].shape[0]
    starts = jnp.stack([first, second])
    rows, columns = starts // size, starts % size
    # What stays of the touched blocks is summed before anything is written: to read a block after writing to it looks
    # simpler, but XLA fuses the two, still needs the old leaves for that, and copies all of them.
    place = rows[:, None] * size + jnp.arange(size)
    away = ((place[..., None] < starts) | (place[..., None] >= starts + run)).all(axis=-1)
    kept = jnp.where(away, blocks.leaf[rows], 0.0).sum(axis=1)
    new = jnp.stack([values[0].sum(), values[1].sum()])
    sums = kept + jnp.where(rows[0] == rows[1], new.sum(), new)
    leaf = put(blocks.leaf, once(kept.min(), values[0])[None], (rows[0], columns[0]))
    leaf = put(leaf, values[1][None], (rows[1], columns[1]))
    return blocks._replace(leaf=leaf, sums=put(put(blocks.sums, sums[:1], (rows[0],)), sums[1:], (rows[1],)))


def put_many(blocks: Blocks, index: Int[Array, " batch"], values: Float[Array, " batch"]) -> Blocks:
    """Write positive leaves at flat indices; a leaf that is 0 stays 0, and the largest of an index's values counts."""
    size = blocks.leaf.shape[1]
    # Equal values for equal indices make the scatter the same on every device, in whatever order it runs.
    values = jnp.max(jnp.where(index[:, None] == index, values, 0.0), axis=1)
    row, column = index // size, index % size
    values = jnp.where(blocks.leaf[row, column] > 0, values, 0.0)
    leaf = blocks.leaf.at[row, column].set(values)
    sums = blocks.sums.at[row].set(leaf[row].sum(axis=1))
    return Blocks(leaf, sums, jnp.maximum(blocks.peak, values.max()))


def draw(blocks: Blocks, key: PRNGKeyArray, batch: int) -> Int[Array, " batch"]:
    """Flat indices, independent, each with probability leaf / total.

    Two uniform numbers a draw: one float32 has 2²³ values, too few to tell a million leaves apart evenly.
    """
    outer, inner = jax.random.uniform(key, (2, batch))
    row = _pick(outer, blocks.sums)
    column = _pick(inner, blocks.leaf[row])
    return row * blocks.leaf.shape[1] + column


def _pick(uniform: Float[Array, " batch"], weights: Float[Array, "*batch n"]) -> Int[Array, " batch"]:
    """Index with probability weight / total along the last axis."""
    edges = jnp.cumsum(weights, axis=-1)
    place = jnp.arange(weights.shape[-1])
    # A parallel cumsum need not be monotone to the last bit, so a weight of 0 could seem to own a sliver: ask for > 0.
    owner = (edges > (uniform * edges[..., -1])[:, None]) & (weights > 0)
    first = jnp.min(jnp.where(owner, place, place.size), axis=-1)
    last = jnp.max(jnp.where(weights > 0, place, 0), axis=-1)
    return jnp.minimum(first, last)


def take(blocks: Blocks, index: Int[Array, " batch"]) -> Float[Array, " batch"]:
    """Leaves at flat indices."""
    size = blocks.leaf.shape[1]
    return blocks.leaf[index // size, index % size]
