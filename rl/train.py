"""Training a group of agents: the loop, its books, and how it goes on after an interruption.

    receive rows -> append and act -> fetch actions -> send -> learn -> receive ...

Emulation runs in threads of its own while the device learns; the one wait is for the actions. The number of updates is
a function of the number of agent steps, so results do not depend on the speed of the machine.

At planned checkpoints fresh episodes begin whether or not anybody resumes, so a killed and resumed run is the
uninterrupted one (if the replay is saved). A run that the user stops saves where it is, too, and goes on from there
with fresh episodes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import numpy as np

from plasticity import checkpoint
from plasticity.errors import UserError
from plasticity.folder import GroupFolder, Options, Stopped
from plasticity.method import Method
from plasticity.rows import tidy
from rl import envs, learner
from rl.envs.base import Row, VecEnv
from rl.episodes import Episodes
from rl.lanes import Lanes
from rl.learner import State
from rl.measure import unit
from rl.planning import normalised, plan_of
from rl.run import Run

#: A replay up to this size is kept in checkpoints unless the user says otherwise.
SAVED_REPLAY = 2**30


@dataclass
class Position:
    """Where a group is, as the host knows it; all counts are of one lane.

    cycle: within the iteration. restarts: of this iteration's episodes. rows: in the replay. credit: updates owed.
    references: reference batches drawn. summed: updates since sums were read. best: highest score of an iteration.
    """

    iteration: int = 0
    cycle: int = 0
    restarts: int = 0
    steps: int = 0
    rows: int = 0
    updates: int = 0
    credit: float = 0.0
    events: int = 0
    references: int = 0
    summed: int = 0
    needs_reference: bool = True
    replay_saved: bool = True
    returns: list[list[float]] = field(default_factory=list)
    lengths: list[list[int]] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    diverged: dict[str, int] = field(default_factory=dict)


def train(
    folder: GroupFolder, runs: Sequence[Run], methods: Sequence[Method], options: Options, **choices: Any
) -> None:
    """Train the runs of a group to their end, side by side. They differ in strengths and seeds only.

    methods: of each run, as compiled. choices: `backend` and `threads` of the environments, `save_replay`. Raises
    `Stopped` after saving if asked to stop.
    """
    _Training(folder, runs, methods, options, **choices).run()


class _Training:
    def __init__(
        self,
        folder: GroupFolder,
        runs: Sequence[Run],
        methods: Sequence[Method],
        options: Options,
        backend: str = "ale",
        threads: int = 0,
        save_replay: bool | None = None,
    ) -> None:
        self.folder, self.runs, self.options = folder, runs, options
        self.first = runs[0]
        self.env_choices = {"backend": backend, "threads": threads}
        self.plan, held = plan_of(self.first, len(runs))
        folder.begin(replay=held.words)
        self.save_replay = held.bytes <= SAVED_REPLAY if save_replay is None else save_replay
        self.lanes = Lanes(self.plan, self.first.measure, methods, [run.seed for run in runs])
        self.envs = len(runs) * self.first.schedule.envs
        self.frames_per_step = envs.spec_of(self.first.games[0], self.first.protocol).frames_per_step
        self.cycles = self.first.schedule.cycles(self.frames_per_step)
        self.episodes = Episodes(len(runs), self.first.schedule.envs)
        self.position = Position(best=[-math.inf] * len(runs))
        self.env: VecEnv | None = None
        self.env_game = -1
        self.row: Row | None = None
        self.best: Any = None
        self.polled = 0.0

    def run(self) -> None:
        self._resume()
        try:
            while self.position.iteration < self.first.schedule.iterations:
                self._iteration()
        finally:
            if self.env is not None:
                self.env.close()
        statuses: list[tuple[str, str | None]] = []
        for run_id in self.folder.run_ids:
            at = self.position.diverged.get(run_id)
            statuses.append(("done", None) if at is None else ("diverged", f"loss not finite in iteration {at}"))
        self.folder.finish(statuses)

    def _iteration(self) -> None:
        at, schedule = self.position, self.first.schedule
        row = self.row
        if row is None or (at.cycle == 0 and schedule.fresh(at.iteration)):
            row = self._restart(schedule.game(at.iteration, len(self.first.games)))
        while at.cycle < self.cycles:
            self.episodes.add(row)
            actions = self.lanes.act(row, self.plan.agent.epsilon(at.steps))
            assert self.env is not None
            self.env.send(np.asarray(actions))
            at.steps += schedule.envs
            at.cycle += 1
            self._learn()
            row = self._fit(self.env.recv())
            self._look_up(row)
        self.row = row
        fresh = schedule.fresh(at.iteration + 1) or at.iteration + 1 == schedule.iterations
        if fresh:
            self.episodes.add(row)
        self._end_iteration()
        if fresh:
            self._keep_policies()
            if at.iteration < schedule.iterations:
                self._save()

    def _learn(self) -> None:
        """The updates that are due after an agent step of every environment."""
        at, agent, schedule = self.position, self.plan.agent, self.first.schedule
        if self.lanes.count * schedule.envs < agent.min_replay_steps:
            return
        if at.needs_reference:
            self.lanes.draw_reference(at.references)
            at.references, at.needs_reference = at.references + 1, False
        at.credit += schedule.envs * agent.replay_ratio
        due = int(at.credit)
        if due == 0:
            return
        at.credit -= due
        before, at.updates = at.updates, at.updates + due
        share = at.steps * self.frames_per_step / schedule.frames
        # Before this step of the environments: after the last one of a game the next would have begun.
        passed = (at.steps - schedule.envs) * self.frames_per_step
        elapsed = schedule.elapsed(passed, len(self.first.games))
        self.lanes.learn(before, due, agent.importance(share), elapsed)
        at.summed += due
        period = schedule.event_updates
        if period and before // period < at.updates // period:
            self._event()
        if self.first.measure.due(before, at.updates):
            self._record({**jax.device_get(self.lanes.measure(at.updates, elapsed)), **self._sums()})

    def _event(self) -> None:
        if any(learner.with_events(run.method) for run in self.runs):
            self.lanes.event(self.position.events + 1)
        self.position.events += 1

    def _sums(self) -> dict[str, np.ndarray]:
        """Means over the updates since the last reading; a lane whose loss is no number has diverged."""
        at = self.position
        if at.summed == 0:
            return {}
        sums = self.lanes.read_sums(at.summed)
        at.summed = 0
        for lane in np.flatnonzero(~np.isfinite(sums["loss"])):
            at.diverged.setdefault(self.folder.run_ids[lane], at.iteration)
        return sums

    def _record(self, values: dict[str, Any]) -> None:
        at = self.position
        frame = tidy(self.folder.run_ids, at.iteration, [(np.array([at.updates]), values)], unit, keep=("loss",))
        self.folder.add(frame)

    def _end_iteration(self) -> None:
        at, run = self.position, self.first
        found = self.episodes.summary(self.frames_per_step)
        game = run.schedule.game(at.iteration, len(run.games))
        scores = found["return"]
        if normalised(run):
            scores = np.array([envs.normalized(run.games[game], score) for score in scores])
        lanes = len(self.runs)
        epsilon = np.full(lanes, self.plan.agent.epsilon(at.steps))
        values = {"end_score": scores, **found, "epsilon": epsilon, "game": np.full(lanes, float(game))}
        if run.measure.every_updates == 0 or at.iteration + 1 == run.schedule.iterations:
            values |= self._sums()  # else at the next measuring point: means over few updates would be noise
        period = run.measure.probe_iterations
        if period and not at.needs_reference and (at.iteration + 1) % period == 0:
            values |= jax.device_get(self.lanes.probe(at.iteration))
        self._record(values)
        self.episodes.clear()
        self._note_best(scores)
        at.iteration, at.cycle, at.restarts = at.iteration + 1, 0, 0

    def _note_best(self, scores: np.ndarray) -> None:
        """Remember the network of each lane that has just had its best iteration."""
        at, variables = self.position, self.lanes.state.learner.variables
        better = np.array([score > best for score, best in zip(scores, at.best, strict=True)])
        at.best = [float(s) if b else old for s, b, old in zip(scores, better, at.best, strict=True)]
        if self.best is None:
            self.best = jax.device_get(variables)
        elif better.any():

            def pick(new: Any, old: np.ndarray) -> np.ndarray:
                return np.where(better.reshape(-1, *[1] * (old.ndim - 1)), np.asarray(new), old)

            self.best = jax.tree.map(pick, variables, self.best)

    def _keep_policies(self) -> None:
        """Write the networks as they are, and those of the best iterations so far."""
        if self.best is None:
            self.best = jax.device_get(self.lanes.state.learner.variables)
        host = {"runs": self.folder.run_ids, "best": [_plain(b) for b in self.position.best]}
        folder, iteration = self.folder.path / "policies", self.position.iteration
        checkpoint.save(folder / "last", iteration, self.lanes.state.learner.variables, host)
        checkpoint.save(folder / "best", iteration, self.best, host)

    def _restart(self, game: int) -> Row:
        """Fresh episodes, in a new game if it has changed since the last iteration."""
        at, run = self.position, self.first
        if at.cycle == 0 and at.iteration and game != run.schedule.game(at.iteration - 1, len(run.games)):
            self._event()
            at.needs_reference = True
            if not run.schedule.keep_replay:
                self.lanes.forget()
        if self.env is None or game != self.env_game:
            if self.env is not None:
                self.env.close()
            self.env = envs.make(run.games[game], self.envs, run.protocol, **self.env_choices)
            self.env_game = game
        self.episodes.abandon()
        seeds = [
            int(np.random.SeedSequence((r.seed, at.iteration, at.restarts, env)).generate_state(1)[0] >> 1)
            for r in self.runs
            for env in range(run.schedule.envs)
        ]
        return self._fit(self.env.restart(seeds))

    def _fit(self, row: Row) -> Row:
        """A row with as many channels as the widest game of the sequence has."""
        missing = self.plan.layout.frame_shape[-1] - row.frame.shape[-1]
        if not missing:
            return row
        return row._replace(frame=np.pad(row.frame, [(0, 0)] * (row.frame.ndim - 1) + [(0, missing)]))

    def _look_up(self, row: Row) -> None:
        """Progress, rows for whoever watches, and a look at whether to stop; not in every cycle."""
        at = self.position
        self.options.progress(self.envs * self.frames_per_step)
        now = time.monotonic()
        if now - self.polled < 0.5:
            return
        self.polled = now
        finite = self.episodes.last[np.isfinite(self.episodes.last)]
        if finite.size:
            self.options.say(f"return {finite.mean():.1f}, {at.updates:,} updates")
        if self.options.stop() and at.cycle < self.cycles:
            self.episodes.add(row)
            at.restarts += 1
            self._save()
            raise Stopped
        if self.folder.due(self.options.save_seconds):
            self.folder.write_part()

    def _save(self) -> None:
        at = self.position
        if at.cycle:
            self._keep_policies()
        at.rows, at.replay_saved = self.lanes.count, self.save_replay
        at.returns, at.lengths = self.episodes.returns, self.episodes.lengths
        host = {**asdict(at), "best": [_plain(b) for b in at.best]}
        self.folder.save(self._saved_state(), host)
        if self.options.stop():
            raise Stopped

    def _saved_state(self) -> Any:
        if self.lanes.frames is not None and self.save_replay:
            return self.lanes.state, self.lanes.frames.frames
        return self.lanes.state if self.save_replay else without_replay(self.lanes.state)

    def _resume(self) -> None:
        newest = checkpoint.latest(self.folder.path / "checkpoints")
        if newest is not None and checkpoint.host_part(newest)["replay_saved"] != self.save_replay:
            raise UserError("this run was begun with another choice about saving the replay; give the same one")
        found = self.folder.resume(self._saved_state())
        if found is None:
            return
        state, host = found
        host["best"] = [-math.inf if b is None else b for b in host["best"]]
        self.position = at = Position(**host)
        self.episodes.returns, self.episodes.lengths = at.returns, at.lengths
        if self.lanes.frames is not None and self.save_replay:
            self.lanes.state, self.lanes.frames.frames[...] = state
        else:
            self.lanes.state = state if self.save_replay else state._replace(ring=self.lanes.state.ring)
        # Without its replay an agent first fills it again; the updates it has made stay made.
        self.lanes.count = at.rows if self.save_replay else 0
        newest = checkpoint.latest(self.folder.path / "policies" / "best")
        if newest is not None:
            self.best = jax.device_get(checkpoint.load(newest, self.lanes.state.learner.variables)[0])
        done = (at.iteration * self.cycles + at.cycle) * self.envs * self.frames_per_step
        self.options.progress(done)


def without_replay(state: State) -> State:
    """The state as it is saved where the replay is too large."""
    return state._replace(ring=None)  # pyrefly: ignore


def _plain(best: float) -> float | None:
    return best if math.isfinite(best) else None
