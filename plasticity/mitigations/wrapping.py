"""What members around the optimiser share: the number of the update, its key, a memory of their own. No mitigation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity.errors import UserError
from plasticity.mitigations.base import Setting
from plasticity.network import Params


class Wrapped(NamedTuple):
    """inner: the wrapped optimiser's state; count: int32 updates seen; key: for draws; own: the wrapper's memory."""

    inner: Any
    count: jax.Array
    key: jax.Array
    own: Any


class Step(NamedTuple):
    """One update. gradient: as it came in; updates: as the inner optimiser would apply them to `params`; number: of
    this update in the run, from 1; key: this update's own."""

    gradient: Params
    updates: Params
    params: Params
    number: jax.Array
    key: jax.Array

    @property
    def stepped(self) -> Params:
        """The parameters as the inner optimiser would leave them."""
        return optax.apply_updates(self.params, self.updates)

    def then(self, change: Callable[[Params], Params]) -> Callable[[Params], Params]:
        """The function of updates that also changes the parameters they lead to."""
        return lambda updates: optax.tree.sub(change(optax.apply_updates(self.params, updates)), self.params)


def around(
    tx: optax.GradientTransformation,
    setting: Setting,
    *,
    before: Callable[[Params, jax.Array], Params] | None = None,
    after: Callable[[Step, Any], tuple[Params, Any]] | None = None,
    start: Callable[[Params], Any] = lambda params: (),
) -> optax.GradientTransformationExtraArgs:
    """The optimiser with something in front of it or behind it.

    before: (gradient, key) -> the gradient that the optimiser sees. after: (step, memory) -> (updates, memory). start:
    the memory at first. `update` takes `step=`, the number of this update in the run from 0, which is not batched where
    runs are, so that what is rare stays a branch; without it the state counts, and starts again with the state.
    """
    inside = optax.with_extra_args_support(tx)

    def init(params: Any) -> Wrapped:
        return Wrapped(inside.init(params), jnp.zeros((), jnp.int32), setting.key, start(params))

    def update(updates: Any, state: Wrapped, params: Any = None, *, step=None, **extra: Any):
        if params is None:
            raise UserError("this optimiser needs the parameters: update(gradient, state, params)")
        count = state.count + 1
        # By the run's step where it is known: the own count starts again when an event renews the optimiser's state,
        # and the same noise would be drawn again.
        number = count if step is None else step + 1
        key, own = jax.random.fold_in(state.key, number), state.own
        gradient = updates if before is None else before(updates, key)
        updates, inner = inside.update(gradient, state.inner, params, step=step, **extra)
        if after is not None:
            updates, own = after(Step(gradient, updates, params, number, key), own)
        return updates, Wrapped(inner, count, state.key, own)

    return optax.GradientTransformationExtraArgs(init, update)  # pyrefly: ignore


def normals(key: jax.Array, like: Params) -> Params:
    """Independent standard normals, shaped as the leaves of a tree."""
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten([jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)])


def when(due: jax.Array | bool, act: Callable[[Params], Params], updates: Params) -> Params:
    """`act(updates)` where it is due; a branch where `due` is not batched."""
    return jax.lax.cond(due, act, lambda updates: updates, updates)
