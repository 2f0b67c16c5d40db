"""Gram matrices of gradients: the empirical neural tangent kernel, and the cosines of the gradients of the loss.

    tangent kernel     K_ij = sum over outputs o of <d f_o(x_i) / d theta, d f_o(x_j) / d theta>       [n, n]
    gradient Gram      G_ij = <g_i, g_j>,  g_i = d l(x_i) / d theta                                    [n, n]
    gradient cosine    C_ij = <g_i, g_j> / (|g_i| |g_j|)                                -1 .. 1        [n, n]

Inputs go in blocks of `chunk`: for each pair of blocks their gradients are formed, multiplied and forgotten. Memory:
2 * chunk * (number of parameters) numbers, and K. Time: n^2 operations a parameter for each output, and n^2 / (2 chunk)
passes of one example forwards and backwards. Each input is passed through the model as a batch of its own, so the model
must treat examples independently (no batch statistics).

References: Jacot et al. 2018 (arXiv:1806.07572); Lyle et al. 2024 (arXiv:2402.18762), figure 3, for 64 inputs; cosines:
Lyle et al. 2023 (arXiv:2303.01486). Names collide: the "gradient covariance" of Lyle et al. 2023 is the cosine matrix,
neither centred nor a covariance; an "NTK" of some code bases is the Gram matrix of the loss's gradients, or the mean
over outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from plasticity.curvature.operators import examples, flatten
from plasticity.diagnostics.base import magnitude, safe_ratio
from plasticity.diagnostics.standalone import standalone
from plasticity.errors import UserError

Gram = Float[Array, "n n"]
#: The gradients of some examples, leaf by leaf: to lay them side by side would be a copy of all of them.
Leaves = list[Float[Array, "rows _"]]
Rows = Callable[[Any], Leaves]


@standalone(
    name="tangent_kernel",
    unit="squared output per squared parameter",
    range=(float("-inf"), float("inf")),
    cost="n^2 products of gradients an output; memory for 2 * chunk gradients",
    reference="Jacot et al. 2018, arXiv:1806.07572",
)
def tangent_kernel(
    model: Callable[[Any, Any], Array], params: Any, x: Any, *, output: int | None = None, chunk: int = 64
) -> Gram:
    """Empirical neural tangent kernel on n inputs, summed over outputs or of one output.

    model: `(params, x[n, ...]) -> [n]` or `[n, ...outputs]`. output: index of the one output to take, among the
    flattened ones; None sums over all (the trace over outputs). chunk: inputs a block, which bounds the memory.

    Raises `UserError` for parameters that are not floating point, no inputs, outputs of another length than the inputs
    and an output that does not exist. NaN in an input's gradient makes its row and column NaN.
    """
    vector, unravel = flatten(params)
    n = examples(x, "x")
    shape = getattr(jax.eval_shape(model, unravel(vector), x), "shape", None)
    if not shape or shape[0] != n:
        raise UserError(f"model(params, x) must be an array with one row for each of the {n} inputs, got {shape}")
    outputs = int(np.prod(shape[1:]))
    if output is not None and not 0 <= output < outputs:
        raise UserError(f"output must be between 0 and {outputs - 1}, got {output}")

    def add(total: Array, index: Array) -> tuple[Array, None]:
        def value(params: Any, one: Any) -> Array:
            return model(params, one).reshape(-1)[index].astype(vector.dtype)

        return total + _gram(_rows(value, unravel(vector)), x, n, vector.dtype, chunk), None

    chosen = jnp.arange(outputs) if output is None else jnp.array([output])
    total, _ = jax.lax.scan(add, jnp.zeros((n, n), vector.dtype), chosen)
    return total


@standalone(
    name="gradient_gram",
    unit="squared gradient",
    range=(float("-inf"), float("inf")),
    cost="n^2 products of gradients; memory for 2 * chunk gradients",
    reference="Lyle et al. 2023, arXiv:2303.01486",
)
def gradient_gram(loss: Callable[..., Array], params: Any, *batch: Any, chunk: int = 64) -> Gram:
    """Inner products of the gradients of the loss of single examples.

    loss: `(params, *batch) -> scalar`, called with one example at a time, as a batch of one. Its mean is the squared
    norm of the batch's gradient; its trace over n is the mean squared norm of an example's. Raises `UserError` as
    `tangent_kernel` does.
    """
    return _gram(*_example_gradients(loss, params, batch, chunk))


@standalone(
    name="gradient_cosine",
    unit="cosine",
    range=(-1, 1),
    cost="n^2 products of gradients; memory for 2 * chunk gradients",
    reference="Lyle et al. 2023, arXiv:2303.01486",
)
def gradient_cosine(loss: Callable[..., Array], params: Any, *batch: Any, chunk: int = 64) -> Gram:
    """Cosines between the gradients of the loss of single examples: the "gradient covariance" of Lyle et al. 2023.

    As `gradient_gram`. An example whose gradient is exactly zero has cosine 0 with all, itself included, so that the
    trace is the number of examples that still have a gradient; `kernel_effective_rank` and its siblings of the matrix
    say how many directions these span. Gradients are scaled before squares are taken: 1e-30 is not yet zero.
    """
    rows, *rest = _example_gradients(loss, params, batch, chunk)

    def unit_rows(part: Any) -> Leaves:
        g = rows(part)
        scale = jax.vmap(magnitude)(jnp.stack([jnp.max(jnp.abs(leaf), axis=1) for leaf in g], axis=1))[:, None]
        g = [leaf / scale for leaf in g]
        norm = jnp.sqrt(sum(jnp.sum(leaf**2, axis=1, keepdims=True) for leaf in g))
        return [safe_ratio(leaf, norm) for leaf in g]

    return _gram(unit_rows, *rest)


def _example_gradients(
    loss: Callable[..., Array], params: Any, batch: tuple[Any, ...], chunk: int
) -> tuple[Rows, Any, int, Any, int]:
    """The arguments of `_gram` for the gradients of single examples."""
    vector, unravel = flatten(params)
    if not jax.tree.leaves(batch):
        raise UserError("a batch of examples is needed: loss(params, *batch)")
    n = examples(batch)

    def value(params: Any, one: Any) -> Array:
        result = loss(params, *one)
        if jnp.shape(result) != ():
            raise UserError(f"loss(params, *batch) must be a scalar, got the shape {jnp.shape(result)}")
        return result.astype(vector.dtype)

    return _rows(value, unravel(vector)), batch, n, vector.dtype, chunk


def _rows(value: Callable[[Any, Any], Array], params: Any) -> Rows:
    """The gradients of `value(params, one)` for each example of a block, which is passed on as a batch of one."""

    def gradient(example: Any) -> Any:
        return jax.grad(value)(params, jax.tree.map(lambda leaf: leaf[None], example))

    def rows(part: Any) -> Leaves:
        gradients = jax.tree.leaves(jax.vmap(gradient)(part))
        return [leaf.reshape(leaf.shape[0], -1) for leaf in gradients if leaf.size]

    return rows


def _gram(rows: Rows, batch: Any, n: int, dtype: Any, chunk: int) -> Gram:
    """`R R^T` of the gradients R `[n, p]`, block by block; of the symmetric halves one is computed."""
    if chunk < 1:
        raise UserError(f"chunk is the number of inputs a block, at least 1, got {chunk}")
    chunk = min(chunk, n)
    blocks = -(-n // chunk)
    # The last block is filled up with the last input: zeros might be where a model is not differentiable.
    index = jnp.minimum(jnp.arange(blocks * chunk), n - 1).reshape(blocks, chunk)
    batch = jax.tree.map(jnp.asarray, batch)
    first, second = np.triu_indices(blocks)

    def block(i: Array) -> Leaves:
        return rows(jax.tree.map(lambda leaf: leaf[index[i]], batch))

    def product(a: Leaves, b: Leaves) -> Array:
        return sum((left @ right.T for left, right in zip(a, b, strict=True)), start=jnp.zeros((chunk, chunk), dtype))

    def step(kept: Leaves, pair: tuple[Array, Array]) -> tuple[Leaves, Array]:
        # Pairs (i, i), (i, i + 1), ...: the first of each i is kept for the others.
        i, j = pair
        new = block(j)
        kept = [jnp.where(i == j, leaf, old) for leaf, old in zip(new, kept, strict=True)]
        return kept, product(kept, new)

    with jax.default_matmul_precision("highest"):
        if blocks == 1:
            whole = block(jnp.array(0))
            return product(whole, whole)
        start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(block, jnp.array(0)))
        _, products = jax.lax.scan(step, start, (jnp.asarray(first), jnp.asarray(second)))
    grid = jnp.zeros((blocks, blocks, chunk, chunk), dtype)
    grid = grid.at[first, second].set(products).at[second, first].set(products.transpose(0, 2, 1))
    return grid.transpose(0, 2, 1, 3).reshape(blocks * chunk, blocks * chunk)[:n, :n]
