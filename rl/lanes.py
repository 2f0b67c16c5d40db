"""A group of agents in memory: their state, and what can be done with all of them at once.

The one place that knows where the frames of the replay are. On the device an act and any number of updates are one
program each; where the host keeps the frames, they are fetched for every update.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.method import Method
from rl.envs.base import Row
from rl.learner import Batch, Plan, State, attached, detached
from rl.measure import Measure
from rl.program import programs, stacked
from rl.replay.host import HostFrames
from rl.replay.sampling import Draw


class Lanes:
    """Agents side by side. methods, seeds: of each lane. count: rows in the replay; it grows with `act`."""

    def __init__(self, plan: Plan, schedule: Measure, methods: Sequence[Method], seeds: Sequence[int]) -> None:
        self.plan, self.count = plan, 0
        self.size = len(seeds)
        self.programs = programs(plan, schedule)
        self.method = stacked(methods)
        self.seeds = jnp.array(seeds, jnp.int32)
        self.state: State = self.programs.start(self.method, self.seeds)
        self.frames = None if plan.frames_on_device else HostFrames(plan.layout, self.size)

    def act(self, row: Row, epsilon: float) -> jax.Array:
        """Actions int32 `[lanes * envs]` on a row of all environments, lane by lane; it goes into the replay."""
        row = Row(*(np.asarray(a).reshape(self.size, -1, *np.shape(a)[1:]) for a in row))
        count, p = np.int32(self.count), self.programs
        self.count += 1
        if self.frames is None:
            self.state, actions = p.act(self.method, self.seeds, self.state, row, count, np.float32(epsilon))
            return actions.reshape(-1)
        self.frames.append(int(count), row.frame)
        # The frames stay behind; their place in the row is taken by something small.
        small = row._replace(frame=np.zeros((*row.frame.shape[:2], 1), row.frame.dtype))
        self.state, (slots, mask) = p.take(self.state, small, count)
        envs = np.broadcast_to(np.arange(self.plan.layout.envs), (self.size, self.plan.layout.envs))
        obs = self.frames.gather(slots, envs, mask)
        self.state, actions = p.choose(self.method, self.seeds, self.state, obs, count, np.float32(epsilon))
        return actions.reshape(-1)

    def learn(self, first: int, updates: int, beta: float, elapsed: float = 0.0) -> None:
        """Updates number `first` to `first + updates - 1`.

        beta: exponent of the importance weights. elapsed: share of the task that has passed.
        """
        count, p = np.int32(self.count), self.programs
        if self.frames is None:
            frames = self.state.ring.frames
            numbers = np.int32(first), np.int32(updates), np.float32(beta), np.float32(elapsed)
            state = p.learn(self.method, self.seeds, frames, self._light, count, *numbers)
            self.state = attached(state, frames)
            return
        for number in range(first, first + updates):
            drawn, weight = p.draw(self.seeds, self._light, count, np.int32(number), np.float32(beta))
            batch = Batch(drawn, *self._observations(drawn), weight)
            numbers = np.int32(number), np.float32(elapsed)
            self.state = p.update(self.method, self.seeds, self.state, batch, *numbers)

    def forget(self) -> None:
        """Empty the replay."""
        # The frames stay where they are, never to be read: a second million of them would not fit beside the first.
        ring = self.programs.forget(self._light.ring)._replace(frames=self.state.ring.frames)
        self.state, self.count = self.state._replace(ring=ring), 0

    def event(self, number: int) -> None:
        """The mitigations' events, number `number` (from 1)."""
        batch = self._batch("event", number)
        self.state = self.programs.event(self.method, self.seeds, self.state, batch, np.int32(number))

    def measure(self, updates: int, elapsed: float = 0.0) -> dict[str, Any]:
        """Diagnostics after so many updates: `name[/layer]` -> `[lanes]`. elapsed: as for `learn`."""
        batch = self._batch("measure", updates)
        numbers = np.int32(updates), np.float32(elapsed)
        return self.programs.measure(self.method, self.seeds, self._light, batch, *numbers)

    def draw_reference(self, number: int) -> None:
        """Draw the reference batch anew."""
        obs, _ = self._observations(self._drawn_for("reference", number))
        self.state = self.state._replace(reference=jnp.asarray(obs))

    def probe(self, number: int) -> dict[str, Any]:
        """The trainability probe: `name` -> `[lanes]`."""
        return self.programs.probe(self.method, self.seeds, self._light, np.int32(number))

    def read_sums(self, updates: int) -> dict[str, np.ndarray]:
        """Means of loss, |TD error| and Q(s, a) over the `updates` made since they were last read, `[lanes]` each."""
        means = np.asarray(self.state.sums, np.float64) / max(updates, 1)
        self.state = self.state._replace(sums=jnp.zeros_like(self.state.sums))
        return dict(zip(("loss", "td_error", "q_mean"), means.T, strict=True))

    @property
    def _light(self) -> State:
        """The state without frames, for programs that do not read them."""
        return detached(self.state)

    def _drawn_for(self, purpose: str, number: int) -> Draw:
        return self.programs.drawn_for[purpose](self.seeds, self._light, np.int32(self.count), np.int32(number))

    def _batch(self, purpose: str, number: int) -> Batch:
        """Transitions for a purpose beside training, all of weight 1."""
        drawn = self._drawn_for(purpose, number)
        return Batch(drawn, *self._observations(drawn), jnp.ones(drawn.slot.shape))

    def _observations(self, drawn: Draw) -> tuple[Any, Any]:
        """The observations of a draw and the ones that follow, `[lanes, batch, ...]`."""

        def gather(slots: jax.Array, mask: jax.Array) -> Any:
            if self.frames is None:
                return self.programs.gather(self.state.ring.frames, slots, drawn.env, mask)
            return self.frames.gather(slots, drawn.env, mask)

        return gather(drawn.obs_slots, drawn.obs_mask), gather(drawn.next_slots, drawn.next_mask)
