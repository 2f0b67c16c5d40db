"""Hessian and Gauss-Newton of a loss as operators on flat vectors: products with a vector, never the matrix.

    Hessian        v -> d^2 L v                     one Hessian-vector product: about 4 forward passes' time
    Gauss-Newton   v -> mean over the batch of J^T (d^2 l / d f^2) J v,   J = d f / d theta

for a loss L that is a mean over a batch of examples. With `chunk` the batch is processed so many examples at a time,
and what is held is one backward pass of `chunk` examples and three vectors of the size of the parameters; the mean is
exact also where `chunk` does not divide the batch. Without it the whole batch is linearised once and its residuals are
kept for all products: faster, by the memory of two backward passes of the batch.

The products work on networks with `jax.custom_vjp` rules, which have no forward-mode derivative: the Hessian
differentiates the gradient forwards, and J v is the transpose of v -> J^T v, taken with reverse mode alone.

Vectors are float32, or float64 where a parameter is. Half-precision parameters are evaluated as float32. Products are
taken in full precision where an accelerator's default would keep 10 bits. A loss with batch statistics (batch norm
while training) is another loss for every chunk. Piecewise linear networks have no curvature at kinks, and the
Hessian is that of the piece they are on.

References: Pearlmutter 1994 (doi:10.1162/neco.1994.6.1.147); Schraudolph 2002 (doi:10.1162/08997660260028683).
Names collide: a "Fisher" or "Hessian" of some code bases is this Gauss-Newton matrix, which has no negative curvature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from plasticity.errors import UserError

Vector = Float[Array, " p"]


@dataclass(frozen=True)
class Operator:
    """A symmetric linear map on vectors of `size` entries.

    apply: `[size] -> [size]`. dtype: of the vectors. unravel: from a vector to a tree as the parameters are.
    Any matrix is one as well: `Operator(lambda v: a @ v, len(a))`. An operator holds arrays: build it in the function
    that is jitted or mapped, do not pass it in.
    """

    apply: Callable[[Vector], Vector]
    size: int
    dtype: Any = jnp.float32
    unravel: Callable[[Vector], Any] = lambda v: v


def hessian(loss: Callable[..., Array], params: Any, *batch: Any, chunk: int | None = None) -> Operator:
    """The Hessian of `loss(params, *batch)`, a scalar, at `params`.

    batch: arrays or trees of arrays `[examples, ...]`; the loss is a mean over examples. chunk: examples at a time,
    None for all. Cost of a product: one gradient and its derivative over the batch.

    Raises `UserError` for parameters that are not floating point or have no entries, a batch whose parts differ in
    length or are empty, a chunk below 1 and a loss that is not a scalar.
    """
    vector, unravel = flatten(params)
    _check_scalar(jax.eval_shape(loss, unravel(vector), *batch), "loss(params, *batch)")

    def products(*part: Any) -> Callable[[Vector], Vector]:
        def gradient(theta: Vector) -> Vector:
            return jax.grad(lambda theta: loss(unravel(theta), *part))(theta)

        return jax.linearize(gradient, vector)[1]

    return Operator(_mean(products, batch, chunk), vector.size, vector.dtype, unravel)


def gauss_newton(
    model: Callable[[Any, Any], Any],
    output_loss: Callable[..., Array],
    params: Any,
    x: Any,
    *targets: Any,
    chunk: int | None = None,
) -> Operator:
    """The generalised Gauss-Newton matrix of `output_loss(model(params, x), *targets)` at `params`.

    model: `(params, x[examples, ...]) -> outputs`, an array or tree `[examples, ...]`. output_loss: a scalar, the mean
    over examples; the matrix is positive semi-definite where it is convex in the outputs. x, targets, chunk and errors
    as for `hessian`. Cost of a product: about that of the Hessian.
    """
    vector, unravel = flatten(params)
    outputs = jax.eval_shape(model, unravel(vector), x)
    _check_scalar(jax.eval_shape(output_loss, outputs, *targets), "output_loss(model(params, x), *targets)")

    def products(x: Any, *targets: Any) -> Callable[[Vector], Vector]:
        outputs, back = jax.vjp(lambda theta: model(unravel(theta), x), vector)
        # Reverse mode of the linear map u -> J^T u is J; forward mode of the model may not exist.
        _, forth = jax.vjp(lambda u: back(u)[0], jax.tree.map(jnp.zeros_like, outputs))
        curve = jax.linearize(jax.grad(lambda outputs: output_loss(outputs, *targets)), outputs)[1]
        return lambda v: back(curve(forth(v)[0]))[0]

    return Operator(_mean(products, (x, *targets), chunk), vector.size, vector.dtype, unravel)


def flatten(params: Any) -> tuple[Vector, Callable[[Vector], Any]]:
    """All entries of a tree as one vector, and the way back. Leaves of size zero own no entry.

    Raises `UserError` for a leaf that is not real floating point, and for a tree without entries.
    """
    paths, treedef = jax.tree_util.tree_flatten_with_path(params)
    for path, leaf in paths:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            where = f"params{jax.tree_util.keystr(path)}"
            raise UserError(f"{where} is {jnp.result_type(leaf)}: curvature needs real floating-point parameters")
    leaves = [jnp.asarray(leaf) for _, leaf in paths]
    shapes = [leaf.shape for leaf in leaves]
    ends = np.cumsum([leaf.size for leaf in leaves])
    if not leaves or ends[-1] == 0:
        raise UserError("params have no entries")
    dtype = jnp.result_type(jnp.float32, *leaves)

    def unravel(vector: Vector) -> Any:
        parts = jnp.split(vector, ends[:-1])
        return jax.tree.unflatten(treedef, [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])

    return jnp.concatenate([leaf.reshape(-1).astype(dtype) for leaf in leaves]), unravel


def _mean(
    products: Callable[..., Callable[[Vector], Vector]], batch: tuple[Any, ...], chunk: int | None
) -> Callable[[Vector], Vector]:
    """The product with a vector as the mean over chunks of the batch, each weighed by its number of examples."""
    if chunk is not None and chunk < 1:
        raise UserError(f"chunk is the number of examples at a time, at least 1, got {chunk}")
    batch = jax.tree.map(jnp.asarray, batch)
    n = examples(batch)
    if chunk is None or n <= chunk:
        with jax.default_matmul_precision("highest"):
            whole = products(*batch)
        return whole
    full = n // chunk

    def product(v: Vector) -> Vector:
        def add(total: Vector, part: Any) -> tuple[Vector, None]:
            return total + (chunk / n) * products(*part)(v), None

        with jax.default_matmul_precision("highest"):
            parts = jax.tree.map(lambda a: a[: full * chunk].reshape(full, chunk, *a.shape[1:]), batch)
            total, _ = jax.lax.scan(add, jnp.zeros_like(v), parts)
            if n > full * chunk:
                rest = jax.tree.map(lambda a: a[full * chunk :], batch)
                total = total + ((n - full * chunk) / n) * products(*rest)(v)
        return total

    return product


def examples(batch: Any, name: str = "the batch") -> int:
    """The common length of all arrays of a batch; 1 without any. Raises `UserError` if they differ or are empty."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batch)]
    lengths = {shape[0] if shape else None for shape in shapes}
    if len(lengths) > 1 or lengths & {None, 0}:
        raise UserError(f"arrays of {name} must have one length along their first axis, not zero, got {shapes}")
    return lengths.pop() or 1 if lengths else 1


def _check_scalar(value: Any, what: str) -> None:
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        shapes = jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", value)
        raise UserError(f"{what} must be a real scalar, the mean over examples, got {shapes}")
