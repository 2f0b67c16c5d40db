"""ReDo: recycle dormant units (Sokar et al. 2023, arXiv:2302.12902)."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax

from plasticity.config import static, traced
from plasticity.diagnostics.units import dormant_mask
from plasticity.mitigations.base import Mitigation, Setting, mitigations
from plasticity.mitigations.recycling import initial_state, recycle


class RedoState(NamedTuple):
    """inner: the wrapped optimiser's state; count: int32 updates seen; key: for the fresh draws."""

    inner: Any
    count: jax.Array
    key: jax.Array


@mitigations.register("redo")
class Redo(Mitigation):
    """Every `every` updates, re-initialise the units whose dormancy score on the current batch is at most `tau`.

    The score is mean |h_i| over the batch divided by its mean over the layer's units, as the diagnostic `dormant_units`
    has it. Incoming weights, bias and norm parameters get a fresh draw, then outgoing weights become zero, then the
    optimiser's state of exactly these entries restarts. Recycling a dead unit (score 0) leaves the network's output
    unchanged, unless a layer norm ties it to its neighbours. tau = 0.1 is the source's value for sample-efficient
    agents; tau < 0 recycles nothing.
    """

    reference = "Sokar et al. 2023, arXiv:2302.12902 (tau .025, every 1,000 updates)"
    stage = "reset"
    resets_units = True

    tau: float = traced(0.025, ge=-1, le=1, help="largest score that counts as dormant")
    every: int = static(1000, ge=1, unit="updates", help="period of the check")

    def neutral(self) -> Self:
        return type(self)(tau=-1.0, every=self.every)

    def optimizer(
        self, tx: optax.GradientTransformationExtraArgs, setting: Setting
    ) -> optax.GradientTransformationExtraArgs:
        """Wrap `tx`. `update` takes `activations=` (of this batch) and, under vmap, `step=`.

        `step`, the number of this update from 0, must be unbatched where runs are batched: a check on the state's own
        count would turn the branch into a select that draws fresh weights in every step.
        """

        def init(params: Any) -> RedoState:
            return RedoState(initial_state(tx, params), jnp.zeros((), jnp.int32), setting.key)

        def update(updates: Any, state: RedoState, params: Any = None, *, activations, step=None, **extra: Any):
            updates, inner = tx.update(updates, state.inner, params, activations=activations, step=step, **extra)
            count = state.count + 1
            due = count if step is None else step + 1

            def reset(operand):
                updates, inner, count = operand
                masks = {
                    layer.name: dormant_mask(activations[layer.name].post, self.tau, setting.network.activation)
                    for layer in setting.network.units
                }
                # By the run's step where it is known: the count starts again when an event renews the optimiser's
                # state, and the same fresh weights would be drawn again.
                fresh = setting.initializer(jax.random.fold_in(state.key, due))["params"]
                return *recycle(tx, updates, inner, params, fresh, masks, setting.network.units), count

            updates, inner, count = jax.lax.cond(
                due % self.every == 0, reset, lambda operand: operand, (updates, inner, count)
            )
            return updates, RedoState(inner, count, state.key)

        return optax.GradientTransformationExtraArgs(init, update)  # pyrefly: ignore
