"""The loop that every probe runs: train a copy for a fixed budget and say how well it fits.

Batches are drawn with replacement, by a key that depends on the probe's key and the number of the update only, so an
aged and a fresh network see the same ones. Penalties, interventions and noise of the run are off; collections other
than parameters (running statistics) stay as they are.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from plasticity.errors import UserError
from plasticity.network import Network
from plasticity.optimizers import stepping

#: A `Network`, or a plain function `forward(params, x[batch, ...]) -> outputs[batch, ...]`.
Model = Network | Callable[[Any, Array], Array]
Initializer = Callable[[jax.Array], Any]


class Fitted(NamedTuple):
    """params: of the copy at the end. loss: over all examples at the end.

    curve: the same before the first update and after every so many, `[updates // every + 1]`; None if not asked for.
    """

    params: Any
    loss: Float[Array, ""]
    curve: Float[Array, " points"] | None


def opened(model: Model, variables: Any) -> tuple[Callable[[Any, Array], Array], Any]:
    """`forward(params, x) -> outputs` and the parameters that a probe trains.

    Of a `Network` those are `variables["params"]`; of a plain function everything that is passed. Of a sequence model
    the outputs are those of the last position, which depend on all tokens.
    """
    if isinstance(model, Network):
        if not isinstance(variables, dict) or "params" not in variables:
            raise UserError("variables of a Network must be a dict with the collection 'params'")

        def forward(params: Any, x: Array) -> Array:
            outputs = model.apply({**variables, "params": params}, x)[0]
            return outputs[:, -1] if model.sequence else outputs

        return forward, variables["params"]
    if not callable(model):
        raise UserError(f"a probe needs a Network or a function forward(params, x), got {type(model).__name__}")
    return model, variables


def examples(x: Any, fewest: int, name: str = "x") -> Array:
    """`x` as an array; a `UserError` for fewer examples than a probe needs."""
    x = jnp.asarray(x)
    if x.ndim < 1 or x.shape[0] < fewest:
        raise UserError(f"{name} must be shaped [examples, ...] with at least {fewest} of them, got {x.shape}")
    return x


def budget(updates: int, batch_size: int, every: int | None = None) -> None:
    """Raises `UserError` for a budget that is none."""
    for name, value in {"updates": updates, "batch_size": batch_size, "every": 1 if every is None else every}.items():
        whole(name, value)
    if every is not None and updates % every:
        raise UserError(f"every={every} must divide updates={updates}")


def whole(name: str, value: Any, fewest: int = 1) -> None:
    """Raises `UserError` if `value` is not a whole number >= fewest; budgets are static, so no traced value either."""
    try:
        ok = not isinstance(value, bool) and operator.index(value) >= fewest
    except (TypeError, jax.errors.JAXTypeError):
        ok = False
    if not ok:
        raise UserError(f"{name} must be a whole number >= {fewest}, known when the program is compiled; got {value!r}")


def outputs_of(forward: Callable[[Any, Array], Array], params: Any, x: Array) -> Float[Array, "examples outputs"]:
    """Outputs as rows: a forward that gives `[examples]` has one output."""
    out = forward(params, x)
    out = out[:, None] if out.ndim == 1 else out
    if out.ndim != 2 or out.shape[0] != x.shape[0] or out.shape[1] == 0:
        raise UserError(f"a probe needs outputs shaped [examples, outputs] for {x.shape[0]} examples, got {out.shape}")
    return out


def fit(
    key: jax.Array,
    forward: Callable[[Any, Array], Array],
    loss: Callable[[Array, Array], Array],
    params: Any,
    x: Array,
    y: Array,
    tx: optax.GradientTransformationExtraArgs,
    state: Any,
    updates: int,
    batch_size: int,
    every: int | None = None,
) -> Fitted:
    """Train a copy of `params` on `x`, `y` for `updates` steps of `tx`.

    loss: `(outputs[batch, outputs], y[batch, ...]) -> [batch]`. state: of the optimiser; None for a fresh one.
    """

    def mean_loss(params: Any, x: Array, y: Array) -> Array:
        return jnp.mean(loss(outputs_of(forward, params, x), y))

    def body(i: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        params, state = carry
        index = jax.random.randint(jax.random.fold_in(key, i), (batch_size,), 0, x.shape[0])
        return stepping.step(tx, jax.grad(mean_loss)(params, x[index], y[index]), state, params)

    params = jax.tree.map(jnp.asarray, params)
    carry = params, tx.init(params) if state is None else state
    if every is None:
        params, _ = jax.lax.fori_loop(0, updates, body, carry)
        return Fitted(params, mean_loss(params, x, y), None)

    def block(carry: tuple[Any, Any], start: Array) -> tuple[tuple[Any, Any], Array]:
        carry = jax.lax.fori_loop(0, every, lambda i, carry: body(start + i, carry), carry)
        return carry, mean_loss(carry[0], x, y)

    before = mean_loss(params, x, y)
    (params, _), after = jax.lax.scan(block, carry, jnp.arange(0, updates, every))
    return Fitted(params, after[-1], jnp.concatenate([before[None], after]))
