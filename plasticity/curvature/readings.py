"""Curvature and kernel of a network in a few numbers, to be recorded as it trains.

    found = jax.jit(lambda params, x, y, key: curvature.readings(loss, model, params, x, y, key))(params, x, y, key)
    monitor.record(step, **found)

It puts together what the modules beside it measure; each number is theirs, with their formulas and caveats: outermost
eigenvalues and effective rank in `eigenvalues`, the trace in `trace`, kernels and cosines in `ntk` and `kernel`.

References: curvature and gradient cosines as plasticity is lost: Lyle et al. 2023 (arXiv:2303.01486), Lewandowski et
al. 2023 (arXiv:2312.00246); kernels: Lyle et al. 2024 (arXiv:2402.18762). Names collide: see each of those modules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from plasticity.curvature.eigenvalues import curvature_effective_rank
from plasticity.curvature.kernel import kernel_condition, kernel_effective_rank, kernel_eigenvalues, kernel_top_share
from plasticity.curvature.lanczos import spectrum
from plasticity.curvature.ntk import gradient_cosine, tangent_kernel
from plasticity.curvature.operators import examples, hessian
from plasticity.curvature.trace import hutchinson_trace
from plasticity.diagnostics.base import Scalar
from plasticity.diagnostics.standalone import standalone
from plasticity.errors import UserError

#: Most inputs a block of the kernels, which bounds their memory.
BLOCK = 64

RECORDS = {
    "hessian_largest_eigenvalue": "loss per squared parameter",
    "hessian_most_negative_eigenvalue": "loss per squared parameter",
    "hessian_trace": "loss per squared parameter",
    "hessian_effective_rank": "directions",
    "ntk_effective_rank": "directions",
    "ntk_condition": "ratio",
    "ntk_top_share": "share of the trace",
    "gradient_cosine_mean": "cosine",
    "gradient_cosine_effective_rank": "directions",
}


@standalone(
    name="curvature_readings",
    unit="each its own",
    range=(float("-inf"), float("inf")),
    cost="order + samples Hessian-vector products (about 4 forward passes each), and inputs^2 products of gradients an "
    "output and for the loss; memory for order vectors of the size of the parameters, or 2 * inputs gradients if more",
    reference="Lyle et al. 2023, arXiv:2303.01486; Lyle et al. 2024, arXiv:2402.18762",
    records=RECORDS,
)
def readings(
    loss: Callable[[Any, Any], Array],
    model: Callable[[Any, Any], Array],
    params: Any,
    x: Any,
    y: Any,
    key: Array,
    *,
    order: int = 30,
    samples: int = 16,
    inputs: int = 64,
    chunk: int | None = None,
) -> dict[str, Scalar]:
    """Scalars of the Hessian of a loss, of the tangent kernel and of the gradients of single examples.

    loss: `(outputs[batch, ...], y[batch, ...]) -> scalar`, a mean over the batch. model: `(params, x[batch, ...]) ->
    outputs`. order: Lanczos steps. samples: of Hutchinson's trace. inputs: the first so many of x for the kernels.
    chunk: examples at a time for the Hessian, None for all; see `hessian`.

    - hessian_largest_eigenvalue (algebraic: the sharpness), hessian_most_negative_eigenvalue: outermost Ritz values.
    - hessian_trace: sum of all eigenvalues, by random signs; hessian_effective_rank: of |eigenvalues|, estimated by
      quadrature from the same Lanczos steps, exact if order reaches the number of parameters.
    - ntk_effective_rank, ntk_condition, ntk_top_share: of the tangent kernel, summed over outputs.
    - gradient_cosine_mean: mean cosine between the loss's gradients of two different examples (negative: they undo each
      other), NaN for one input; gradient_cosine_effective_rank: of the matrix of these cosines.

    Works under `jit`, which it should be called under, and under `vmap` over runs. NaN where the network is not finite.
    Raises `UserError` for fewer than one input, and as `hessian` and `tangent_kernel` do.
    """
    if inputs < 1:
        raise UserError(f"inputs must be at least 1, got {inputs}")
    operator = hessian(lambda params, x, y: loss(model(params, x), y), params, x, y, chunk=chunk)
    lanczos_key, trace_key = jax.random.split(key)
    estimate = spectrum(operator, lanczos_key, order)
    first_x, first_y = (jax.tree.map(lambda leaf: leaf[:inputs], batch) for batch in (x, y))
    n = examples(first_x)
    block = min(BLOCK, n)
    eigenvalues = kernel_eigenvalues(tangent_kernel(model, params, first_x, chunk=block))
    cosines = gradient_cosine(lambda params, x, y: loss(model(params, x), y), params, first_x, first_y, chunk=block)
    pairs = n * (n - 1)
    return {
        "hessian_largest_eigenvalue": jnp.max(estimate.values),
        "hessian_most_negative_eigenvalue": jnp.min(estimate.values),
        "hessian_trace": hutchinson_trace(operator, trace_key, samples).value,
        "hessian_effective_rank": curvature_effective_rank(estimate),
        "ntk_effective_rank": kernel_effective_rank(eigenvalues),
        "ntk_condition": kernel_condition(eigenvalues),
        "ntk_top_share": kernel_top_share(eigenvalues),
        "gradient_cosine_mean": (jnp.sum(cosines) - jnp.trace(cosines)) / pairs if pairs else jnp.array(jnp.nan),
        "gradient_cosine_effective_rank": kernel_effective_rank(cosines),
    }
