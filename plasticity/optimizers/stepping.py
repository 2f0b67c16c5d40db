"""From parameters to parameters: what a training loop of this suite does with a composed optimiser.

    params, state = step(tx, gradient, state, params, activations=..., step=...)

is `tx.update` and `optax.apply_updates`; a transformation that has a way of its own from parameters to parameters, as
the wrappers that reset units have, takes that one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optax


class SteppingTransformation(optax.GradientTransformationExtraArgs):
    """An optax transformation that can also `step(gradient, state, params, **extra) -> (params, state)`.

    Both ways lead to the same parameters, up to rounding.
    """

    step: Callable[..., tuple[Any, Any]]

    def __new__(cls, init: Any, update: Any, step: Callable[..., tuple[Any, Any]]) -> SteppingTransformation:
        self = super().__new__(cls, init, update)
        self.step = step
        return self


def step(tx: optax.GradientTransformation, gradient: Any, state: Any, params: Any, **extra: Any) -> tuple[Any, Any]:
    """One update of any optax transformation: the new parameters and the new state."""
    if isinstance(tx, SteppingTransformation):
        return tx.step(gradient, state, params, **extra)
    updates, state = optax.with_extra_args_support(tx).update(gradient, state, params, **extra)
    return optax.apply_updates(params, updates), state
