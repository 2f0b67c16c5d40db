"""Grids of agents: the product of games, agents, mitigations and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plasticity.errors import UserError
from rl.recipe import runs_of
from rl.run import Run


@dataclass(frozen=True)
class AgentGrid:
    """Axes of spec texts. seeds: so many, from 0. settings: arguments of `rl.recipe.runs_of` that all runs share."""

    game: Sequence[str]
    agent: Sequence[str] = ("rainbow",)
    mitigations: Sequence[str] = ("none",)
    network: Sequence[str] = ("",)
    optimizer: Sequence[str] = ("",)
    seeds: int = 3
    settings: Mapping[str, Any] = field(default_factory=dict)

    def runs(self) -> list[Run]:
        """The runs in order, each id once. Raises `UserError` for a bad spec or an empty axis."""
        for axis in ("game", "agent", "mitigations", "network", "optimizer"):
            if not getattr(self, axis):
                raise UserError(f"the grid's axis {axis!r} is empty")
        found = [
            run
            for game in self.game
            for agent in self.agent
            for network in self.network
            for optimizer in self.optimizer
            for run in runs_of(
                game, agent, self.mitigations, range(self.seeds), network=network, optimizer=optimizer, **self.settings
            )
        ]
        return list({run.id: run for run in found}.values())
