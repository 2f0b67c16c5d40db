"""When an agent is measured, and what is measured then.

A measurement is of the update that the agent would make next, on a batch of its own drawn from the replay, and of the
network on a fixed reference batch of observations. It changes nothing. Points are dense at first (after updates 1, 2,
4, ...), then every `every_updates`; the trainability probe, which trains copies, has a period in iterations.

Churn is what one update on one batch changes elsewhere: the share of reference observations whose greedy action
changes, and the mean change of their largest value (Schaul et al. 2022, arXiv:2206.00730; Tang & Berseth 2024,
arXiv:2409.04792).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from plasticity import probes
from plasticity.config import Config, config, static
from plasticity.diagnostics import diagnose, unit_of
from plasticity.diagnostics.sets import CHEAP, RANKS
from plasticity.diagnostics.sets import named as further
from plasticity.method import Method
from plasticity.rng import named, stream
from rl.learner import Batch, Plan, State, gradient, outputs, parts, step
from rl.replay.sampling import Draw, draw

#: Units of what is not a diagnostic of the library.
UNITS = {
    "end_score": "score",
    "return": "points",
    "episodes": "episodes",
    "episode_length": "frames",
    "epsilon": "share",
    "game": "index",
    "loss": "value squared or nats",
    "td_error": "value",
    "q_mean": "value",
    "reference_value": "value",
    "policy_churn": "share",
    "value_churn": "value",
    "probe_loss": "share of variance",
    "probe_loss_fresh": "share of variance",
}


def unit(name: str) -> str:
    """The unit of a metric or diagnostic."""
    return UNITS[name] if name in UNITS else unit_of(name)


@config
class Measure(Config):
    """The measuring schedule of an agent; part of its config and so of its id."""

    name = "measure"

    every_updates: int = static(20_000, ge=0, unit="updates", help="period of the diagnostics; 0 = never")
    reference: int = static(256, ge=2, unit="observations", help="size of the reference batch")
    ranks: bool = static(True, help="also the rank metrics of dense layers")
    also: str = static("", help="further diagnostics: names with spaces between")
    probe_iterations: int = static(0, ge=0, unit="iterations", help="period of the trainability probe; 0 = never")
    probe_updates: int = static(200, ge=1, unit="updates", help="that the probe trains a copy for")

    def validate(self) -> None:
        further(self.also)

    def due(self, before: int, after: int) -> bool:
        """Whether a measuring point lies in the updates `before + 1 ... after`."""
        if self.every_updates == 0 or after <= before:
            return False
        dense = after < self.every_updates and before.bit_length() < after.bit_length()
        return dense or before // self.every_updates < after // self.every_updates


#: Purposes for which transitions are drawn beside training.
PURPOSES = ("reference", "measure", "event")


def drawn_for(plan: Plan, purpose: str, seed: Any, state: State, count: Int[Array, ""], number: Any) -> Draw:
    """Transitions for one of `PURPOSES`, drawn as for training. number: of this draw, for its key."""
    key = jax.random.fold_in(named(stream(seed, "probe"), purpose), number)
    size = plan.agent.batch_size if purpose == "measure" else plan.reference
    return draw(plan.layout, state.ring, count, key, size, plan.drawing)


def measure(
    plan: Plan,
    schedule: Measure,
    method: Method,
    seed: Any,
    state: State,
    batch: Batch,
    number: Int[Array, ""],
    elapsed: Any = None,
) -> dict[str, Array]:
    """Diagnostics after `number` updates, as a flat mapping `name[/layer]` -> scalar.

    batch: of the next update. elapsed: share of the task that has passed.
    """
    made = parts(plan, method, seed)
    setting = made.setting
    key = jax.random.fold_in(named(stream(seed, "probe"), "noise"), number)
    found = gradient(plan, made, state.learner.variables, state.target, batch, state.reference, key)
    learner, updates = step(made, state.learner, found, number, elapsed)
    before, activations, _ = outputs(plan, made, state.learner.variables, state.reference)
    after, _, _ = outputs(plan, made, learner.variables, state.reference)
    old, new = made.head.predict(before), made.head.predict(after)
    result = {
        "reference_value": jnp.mean(jnp.max(old, axis=1)),
        "policy_churn": jnp.mean(jnp.argmax(old, axis=1) != jnp.argmax(new, axis=1)),
        "value_churn": jnp.mean(jnp.abs(jnp.max(new, axis=1) - jnp.max(old, axis=1))),
    }
    result |= diagnose(
        activations=activations,
        params=state.learner.variables["params"],
        initial_params=made.initial["params"],
        grads=found.grads,
        updates=updates,
        activation=setting.network.activation,
        learning_rate=setting.learning_rate,
        choose=dict.fromkeys((*CHEAP, *further(schedule.also))),
    )
    dense = {name: a for name, a in activations.items() if a.post.ndim == 2}
    if schedule.ranks and dense:
        result |= diagnose(activations=dense, activation=setting.network.activation, choose=RANKS)
    return result


def probe(plan: Plan, schedule: Measure, method: Method, seed: Any, state: State, number: Any) -> dict[str, Array]:
    """The trainability probe on the reference batch. number: of the iteration."""
    made = parts(plan, method, seed)
    key = jax.random.fold_in(named(stream(seed, "probe"), "trainability"), number)
    tx = method.optimizer.build()
    found = probes.trainability(
        key,
        made.setting.network,
        state.learner.variables,
        made.setting.initializer,
        state.reference,
        tx,
        schedule.probe_updates,
        min(plan.agent.batch_size, plan.reference),
    )
    return {"probe_loss": found.loss, "probe_loss_fresh": found.fresh_loss}
