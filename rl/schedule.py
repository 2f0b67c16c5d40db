"""How long an agent trains, in what rhythm, and on which games: every field with its unit in its name.

An *iteration* is a fixed number of environment frames: scores are averaged over it, and at its end the agent is saved
and fresh episodes begin. One agent step is `frames_per_step` frames (4 in Atari, 1 elsewhere).
"""

from __future__ import annotations

from plasticity.config import Config, config, static
from plasticity.errors import UserError


@config
class Schedule(Config):
    """Budgets and periods of a run; part of its config and so of its id."""

    name = "schedule"

    frames: int = static(200_000_000, ge=1, unit="frames", help="of the whole run")
    iteration_frames: int = static(1_000_000, ge=1, unit="frames", help="of an iteration")
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

    def game(self, iteration: int, games: int) -> int:
        """Index of the game that iteration is played on; a sequence begins again after its last game."""
        return iteration // self.switch_iterations % games if self.switch_iterations else 0
