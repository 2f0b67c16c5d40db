"""What wrappers that reset parts of a network share: when they act, and what they see. Not a mitigation.

A wrapper follows something in every update (`track`) and acts in some (`fires`, `reset`). Acting is a branch, also
where runs are batched: under `vmap` the branch is taken if any run of the batch fires, and the others keep what they
have. So on updates on which nobody fires a reset costs nothing but its tracking.

A reset acts on the parameters that the update has led to. optax passes updates, which then have to exist as arrays of
their own beside the parameters; where a network is large next to its batch, that is what an update costs. So a wrapper
can also `step` from parameters to parameters, see `plasticity.optimizers.stepping`; its `update` gives the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.custom_batching import custom_vmap

from plasticity.errors import UserError
from plasticity.mitigations.base import Setting
from plasticity.mitigations.recycling import initial_state, recycle
from plasticity.network import Params, UnitLayer
from plasticity.optimizers import stepping
from plasticity.optimizers.stepping import SteppingTransformation


class ResetState(NamedTuple):
    """inner: the wrapped optimiser's state; count: int32 updates seen; key: for fresh draws; memory: the wrapper's."""

    inner: Any
    count: jax.Array
    key: jax.Array
    memory: Any


class Seen(NamedTuple):
    """One update. gradient: as it came in; stepped: the parameters after the inner optimiser's update; activations: of
    the batch by layer, where the loop gives them; number: of this update in the run, from 1; key: this wrapper's."""

    gradient: Params
    stepped: Params
    activations: Any
    number: jax.Array
    key: jax.Array


@custom_vmap
def anywhere(fires: jax.Array) -> jax.Array:
    """The predicate itself; under `vmap` whether it holds in any run, unbatched, so that a `cond` on it is a branch."""
    return fires


@anywhere.def_vmap
def _(size: int, batched: list[bool], fires: jax.Array) -> tuple[jax.Array, bool]:
    return anywhere(jnp.any(fires, axis=0) if batched[0] else fires), False


def units_of(who: str, setting: Setting) -> tuple[UnitLayer, ...]:
    """The network's unit graph; a `UserError` of the mitigation `who` where it is empty."""
    if not setting.network.units:
        raise UserError(f"{who} acts on units, and this network names none: give Network(units=...) its unit graph")
    return setting.network.units


def every(period: int) -> Callable[[Any, Seen], jax.Array]:
    """Fires on updates period, 2 period, ..."""
    return lambda memory, seen: seen.number % period == 0


def resetting(
    who: str,
    tx: optax.GradientTransformation,
    setting: Setting,
    *,
    fires: Callable[[Any, Seen], jax.Array],
    reset: Callable[[Params, Any, Any, Seen], tuple[Params, Any, Any]],
    start: Callable[[Params], Any] = lambda params: (),
    track: Callable[[Any, Seen], Any] = lambda memory, seen: memory,
    reads_activations: bool = True,
) -> SteppingTransformation:
    """The optimiser with a reset around it.

    start: the memory at first. track: the memory after an update. fires: whether to act. reset: from (parameters after
    the update, inner state, memory) the same after acting. `update` and `step` take `activations=` (of this batch) and
    `step=`, the number of this update in the run from 0; without it the state counts, and starts again when an event
    renews the state.
    """
    inside = optax.with_extra_args_support(tx)

    def init(params: Any) -> ResetState:
        return ResetState(initial_state(inside, params), jnp.zeros((), jnp.int32), setting.key, start(params))

    def check(params: Any, activations: Any) -> None:
        given = {"params": params} | ({"activations=": activations} if reads_activations else {})
        if missing := [name for name, value in given.items() if value is None]:
            raise UserError(f"{who}: update(...) needs {' and '.join(missing)}, which this loop does not give")

    def then(stepped: Params, gradient: Params, inner: Any, state: ResetState, activations: Any, step: Any):
        """What follows the inner optimiser's update: (parameters, state)."""
        count = state.count + 1
        # By the run's step where it is known: the own count starts again when an event renews the optimiser's state,
        # and the same fresh weights would be drawn again.
        number = count if step is None else step + 1
        seen = Seen(gradient, stepped, activations, number, state.key)
        memory = track(state.memory, seen)
        mine = fires(memory, seen)

        def act(old):
            # A run that does not fire itself may be taken along by another one of its batch.
            params, inner, memory = old
            return jax.tree.map(lambda a, b: jnp.where(mine, a, b), reset(params, inner, memory, seen), old)

        params, inner, memory = jax.lax.cond(anywhere(mine), act, lambda old: old, (stepped, inner, memory))
        return params, ResetState(inner, count, state.key, memory)

    def step(gradient: Any, state: ResetState, params: Any, *, activations=None, step=None, **extra: Any):
        check(params, activations)
        extra |= {"activations": activations, "step": step}
        stepped, inner = stepping.step(inside, gradient, state.inner, params, **extra)
        return then(stepped, gradient, inner, state, activations, step)

    def update(gradient: Any, state: ResetState, params: Any = None, *, activations=None, step=None, **extra: Any):
        check(params, activations)
        extra |= {"activations": activations, "step": step}
        updates, inner = inside.update(gradient, state.inner, params, **extra)
        stepped = optax.apply_updates(params, updates)
        target, state = then(stepped, gradient, inner, state, activations, step)
        # Where nothing was reset exactly the inner update; elsewhere one that leads to zero without rounding error.
        lead = lambda u, s, t, p: jnp.where(t == s, u, t - p)  # noqa: E731
        return jax.tree.map(lead, updates, stepped, target, params), state

    return SteppingTransformation(init, update, step)


def fresh_units(
    tx: optax.GradientTransformation,
    setting: Setting,
    params: Params,
    inner: Any,
    seen: Seen,
    masks: Mapping[str, jax.Array],
) -> tuple[Params, Any]:
    """Recycle the masked units with a fresh draw of this update's own: (parameters, inner state)."""
    fresh = setting.initializer(jax.random.fold_in(seen.key, seen.number))["params"]
    return recycle(tx, params, inner, fresh, masks, setting.network.units)
