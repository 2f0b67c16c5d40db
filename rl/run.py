"""One agent's run as text: what it is called, what it hashes to, and the configs it resolves to.

A sequence of games is written `breakout>asterix`; the game changes every `switch_iterations` and the sequence begins
again after its last. All games of a sequence have the full action set.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

from plasticity import spec
from plasticity.errors import UserError
from plasticity.identity import digest, resolved
from plasticity.method import Method
from plasticity.mitigations import compose
from plasticity.mitigations.base import mitigations
from plasticity.networks.base import networks
from plasticity.optimizers.base import optimizers
from rl import envs
from rl.agents import AgentConfig, agents
from rl.measure import Measure
from rl.protocols import ProtocolConfig, protocols
from rl.schedule import Schedule

ARROW = ">"
#: What stands in for an agent's own network and protocol where its games are not Atari's.
BY_SUITE = {"minatar": ("minatar", "minatar"), "probe": ("mlp(64, 2)", "plain"), "fake": ("nature(64)", "nature")}


@dataclass(frozen=True)
class Run:
    """Games, what learns them, in what rhythm, how it is measured, and a seed."""

    kind: ClassVar[str] = "agents"

    games: tuple[str, ...]
    agent: AgentConfig
    protocol: ProtocolConfig
    schedule: Schedule
    measure: Measure
    method: Method
    seed: int

    @classmethod
    def of(
        cls,
        game: str,
        agent: str = "rainbow",
        mitigation: str = "none",
        seed: int = 0,
        schedule: Schedule | None = None,
        measure: Measure | None = None,
        protocol: str = "",
        network: str = "",
        optimizer: str = "",
    ) -> Run:
        """A run from spec texts; an empty text means what the agent's preset, or the games' suite, says.

        Raises `UserError` for anything that is not a possible run.
        """
        schedule = schedule or Schedule()
        games = tuple(name.strip() for name in game.split(ARROW))
        suites = {envs.get(name).suite for name in games}
        if len(suites) > 1:
            raise UserError(f"a sequence needs games of one suite; {game!r} has {', '.join(sorted(suites))}")
        if len(games) > 1 and not schedule.switch_iterations:
            raise UserError(
                f"the sequence {game!r} needs switch_iterations: after how many iterations the game changes"
            )
        chosen = spec.build_one(agent, agents)
        own_network, own_protocol = BY_SUITE.get(suites.pop(), (chosen.network, chosen.protocol))
        built = spec.build_one(protocol or own_protocol, protocols)
        if len(games) > 1:
            built = replace(built, full_actions=True)  # pyrefly: ignore
        method = Method(
            spec.build_one(network or own_network, networks),
            spec.build_one(optimizer or chosen.optimizer, optimizers),
            compose.canonical(spec.build(mitigation, mitigations)),
        )
        return cls(games, chosen, built, schedule, measure or Measure(), method, seed)

    @property
    def key(self) -> str:
        """The games, as records call them."""
        return ARROW.join(self.games)

    @property
    def label(self) -> str:
        """The mitigations in canonical order, `none` if there are none."""
        return spec.to_text(self.method.mitigations)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The canonical config, as spec text: what is written beside the results."""
        return {
            "task": self.key,
            "game": self.key,
            "agent": spec.to_text(self.agent),
            "protocol": spec.to_text(self.protocol),
            "schedule": spec.to_text(self.schedule),
            "network": spec.to_text(self.method.network),
            "optimizer": spec.to_text(self.method.optimizer),
            "mitigations": self.label,
            "measure": spec.to_text(self.measure),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Run:
        """The run whose `config` this is."""
        schedule, measure = (spec.parse(config[name])[0].kwargs for name in ("schedule", "measure"))
        return cls.of(
            config["game"],
            config["agent"],
            config["mitigations"],
            config["seed"],
            Schedule(**schedule),
            Measure(**measure),
            config["protocol"],
            config["network"],
            config["optimizer"],
        )

    @cached_property
    def id(self) -> str:
        """12 hex digits of the SHA-256 of the resolved config."""
        method = self.method
        parts = {
            "games": self.games,
            "agent": resolved(self.agent),
            "protocol": resolved(self.protocol),
            "schedule": resolved(self.schedule),
            "network": resolved(method.network),
            "optimizer": resolved(method.optimizer),
            "mitigations": [resolved(m) for m in method.mitigations],
            "measure": resolved(self.measure),
            "seed": self.seed,
        }
        return digest(parts)
