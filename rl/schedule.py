"""How long an agent trains, in what rhythm, and on which games: every field with its unit in its name.

An *iteration* is a fixed number of environment frames over which scores are averaged. At a *checkpoint*, every
`checkpoint_iterations`, the agent is saved and fresh episodes begin; between two of them lie many episodes, or short
ones would be over-represented. One agent step is `frames_per_step` frames (4 in Atari, 1 elsewhere).
"""

from __future__ import annotations

from plasticity.config import Config, config, static
from plasticity.errors import UserError


def default(frames: int, envs: int, frames_per_step: int) -> tuple[int, int]:
    """An iteration for a run of so many frames, about a fiftieth of it and a million frames at most, and its
    checkpoints, at least ten in a run. Raises `UserError` if the frames are no whole number of agent steps.
    """
    batch = envs * frames_per_step
    if frames < batch or frames % batch:
        near = max(1, round(frames / batch)) * batch
        raise UserError(
            f"frames must be a multiple of envs x frames a step = {envs} x {frames_per_step}, got {frames}; "
            f"the nearest is {near}"
        )
    cycles = frames // batch
    most = max(1, min(cycles // 50, 1_000_000 // batch))
    iteration = next(n for n in range(most, 0, -1) if cycles % n == 0)
    return iteration * batch, max(1, cycles // iteration // 10) if iteration * batch < 1_000_000 else 1


@config
class Schedule(Config):
    """Budgets and periods of a run; part of its config and so of its id."""

    name = "schedule"

    frames: int = static(200_000_000, ge=1, unit="frames", help="of the whole run")
    iteration_frames: int = static(1_000_000, ge=1, unit="frames", help="of an iteration")
    checkpoint_iterations: int = static(1, ge=1, unit="iterations", help="between checkpoints")
    envs: int = static(8, ge=1, unit="environments", help="that an agent acts in at once")
    switch_iterations: int = static(0, ge=0, unit="iterations", help="between games of a sequence")
    event_updates: int = static(0, ge=0, unit="updates", help="between events (resets by mitigations); 0 = never")
    keep_replay: bool = static(True, help="keep the replay when the game changes")

    @property
    def iterations(self) -> int:
        """Number of iterations."""
        return self.frames // self.iteration_frames

    def validate(self) -> None:
        if self.frames % self.iteration_frames:
            near = max(1, round(self.frames / self.iteration_frames)) * self.iteration_frames
            raise UserError(
                f"schedule: frames ({self.frames}) must be a multiple of iteration_frames ({self.iteration_frames}), "
                f"for example {near}"
            )

    def cycles(self, frames_per_step: int) -> int:
        """Times that all environments step in an iteration. Raises `UserError` if that is no whole number."""
        batch = self.envs * frames_per_step
        if self.iteration_frames % batch:
            near = max(1, round(self.iteration_frames / batch)) * batch
            raise UserError(
                f"schedule: iteration_frames ({self.iteration_frames}) must be a multiple of envs x frames a step = "
                f"{self.envs} x {frames_per_step}; the nearest is {near}"
            )
        return self.iteration_frames // batch

    def fresh(self, iteration: int) -> bool:
        """Whether fresh episodes begin with an iteration: after a checkpoint, and in a new game."""
        switches = self.switch_iterations and iteration % self.switch_iterations == 0
        return iteration % self.checkpoint_iterations == 0 or bool(switches)

    def elapsed(self, frames: int, games: int) -> float:
        """Share of the stay in a game that has passed after so many frames; of the run where there is one game."""
        stay = self.switch_iterations * self.iteration_frames if games > 1 else self.frames
        return frames % stay / stay

    def game(self, iteration: int, games: int) -> int:
        """Index of the game that iteration is played on; a sequence begins again after its last game."""
        return iteration // self.switch_iterations % games if self.switch_iterations else 0
