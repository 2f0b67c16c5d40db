"""Self-normalised resets, SNR: reset units that are silent unusually long (Farias & Jozefiak 2024)."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax

from plasticity.config import static, traced
from plasticity.diagnostics.arrays import as_rows
from plasticity.diagnostics.base import width_of
from plasticity.diagnostics.tracking import FiringAges, interval_quantile, start_ages, update_ages
from plasticity.diagnostics.units import own_features
from plasticity.mitigations.base import Mitigation, Setting, mitigations
from plasticity.mitigations.resets import Seen, fresh_units, resetting, units_of
from plasticity.network import Params


class Silence(NamedTuple):
    """ages: how long each unit is silent and the histogram of its intervals; tau: its threshold, in updates."""

    ages: FiringAges
    tau: jax.Array


def renewed_threshold(silence: Silence, eta: Any) -> Silence:
    """Thresholds after a window, and empty histograms for the next one; see the docstring of the mitigation."""
    bins = silence.ages.histogram.shape[1]
    found = interval_quantile(silence.ages, eta)
    tau = jnp.where(found < silence.tau, found, 2 * silence.tau)
    tau = jnp.where(jnp.isfinite(found), jnp.minimum(tau, bins), silence.tau)
    return Silence(silence.ages._replace(histogram=jnp.zeros_like(silence.ages.histogram)), tau)


def silenced(silence: Silence, mask: jax.Array) -> Silence:
    """After a reset of the masked units: their age is 0, and the interval that was cut short counts as it was."""
    ages = silence.ages
    bins = ages.histogram.shape[1]
    here = jnp.arange(bins) == jnp.clip(ages.age, 1, bins)[:, None] - 1
    histogram = ages.histogram + (here & mask[:, None])
    return Silence(ages._replace(age=jnp.where(mask, 0, ages.age), histogram=histogram), silence.tau)


@mitigations.register("self_normalised_resets")
class SelfNormalisedResets(Mitigation):
    """Reset a unit when it has been silent for longer than its own `eta`-quantile of the times between firings.

    a_i = updates since unit i last fired, that is was positive on some row and position of a batch (for ReLU: a
    positive preactivation; of CReLU's two features either). Every `window` updates its threshold is set from the
    histogram of its intervals in that window: with q the smallest interval that a share eta of them do not exceed,

        tau_i <- q if q < tau_i, else 2 tau_i,   at least 1, at most `longest`;   no intervals: tau_i stays

    and the histogram starts anew. Any update with a_i >= tau_i resets the unit in the way of `redo`; the interval that
    was cut short counts with its length, so a threshold that cuts too many doubles. At first tau_i = longest.

    Ages are in updates, in batches of B an age of a is a B samples, which is also the resolution of the authors' code.
    Its thresholds are renewed every 16 tasks and its largest age is 20,000 samples; `window` and `longest` are this
    suite's defaults. eta is .92 to .99 there. eta = 1 with a large `longest` resets least; there is no zero strength,
    because a unit that is silent for `longest` updates is reset at any eta. Bias and norm parameters are redrawn.

    Meant for ReLU-like nonlinearities: a tanh unit that stays negative is not silent. Memory: 4 bytes x units x
    longest, whatever the length of a run; intervals of `longest` and more share the last bin.
    """

    reference = "Farias & Jozefiak 2024, arXiv:2410.20098"
    cost = "ages and histograms in every update, 4 bytes x units x longest; a fresh draw where a unit is reset"
    stage = "reset"
    resets_units = True

    eta: float = traced(0.98, ge=0, le=1, positional=True, help="quantile of the intervals that is the threshold")
    window: int = static(1000, ge=1, unit="updates", help="after so many, thresholds are set anew")
    longest: int = static(128, ge=1, unit="updates", help="largest threshold, and bins of the histogram")

    def neutral(self) -> Self | None:
        return None

    def optimizer(
        self, tx: optax.GradientTransformationExtraArgs, setting: Setting
    ) -> optax.GradientTransformationExtraArgs:
        """Wrap `tx`; see `resets.resetting` for what `update` takes. The memory: a `Silence` by layer."""
        layers = units_of(self.name, setting)
        width = width_of(setting.network.activation)

        def start(params: Any) -> dict[str, Silence]:
            return {
                layer.name: Silence(start_ages(layer.units, self.longest), jnp.full(layer.units, float(self.longest)))
                for layer in layers
            }

        def follow(silence: Silence, post: jax.Array) -> Silence:
            rows = as_rows(post)
            fires = jnp.max(own_features(rows, rows.shape[-1] // width), axis=-2)
            return silence._replace(ages=update_ages(silence.ages, fires))

        def track(memory: Any, seen: Seen) -> Any:
            memory = {name: follow(silence, seen.activations[name].post) for name, silence in memory.items()}

            def renew(memory):
                return {name: renewed_threshold(silence, self.eta) for name, silence in memory.items()}

            return jax.lax.cond(seen.number % self.window == 0, renew, lambda memory: memory, memory)

        def masks(memory: Any) -> dict[str, jax.Array]:
            return {name: silence.ages.age >= silence.tau for name, silence in memory.items()}

        def fires(memory: Any, seen: Seen) -> jax.Array:
            return jnp.any(jnp.concatenate(list(masks(memory).values())))

        def reset(params: Params, inner: Any, memory: Any, seen: Seen):
            chosen = masks(memory)
            memory = {name: silenced(silence, chosen[name]) for name, silence in memory.items()}
            return *fresh_units(tx, setting, params, inner, seen, chosen), memory

        return resetting(self.name, tx, setting, fires=fires, reset=reset, start=start, track=track)
