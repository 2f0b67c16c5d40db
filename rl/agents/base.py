"""The agent's options: which parts it has, and every budget with its unit in its name.

All presets are members of one family that differ in defaults only. A preset also names the network, optimiser and
protocol of its source; each can be replaced by its own flag.
"""

from __future__ import annotations

from typing import ClassVar

from plasticity.config import Config, config, static
from plasticity.errors import UserError
from plasticity.registry import Family

PRIORITIES = ("none", "td", "loss", "sqrt_loss")


@config
class AgentConfig(Config):
    """A DQN with any of its extensions. One agent step is one action; one update is one batch."""

    name: ClassVar[str]
    reference: ClassVar[str] = ""
    #: Spec texts of what the preset's source uses.
    network: ClassVar[str] = "nature"
    optimizer: ClassVar[str] = "adam(6.25e-5, eps=1.5e-4)"
    protocol: ClassVar[str] = "machado"

    double: bool = static(False, help="select the next action by the online network, evaluate it by the target")
    dueling: bool = static(False, help="a value and an advantage stream")
    noise: float = static(0.0, ge=0, help="initial deviation of noisy layers; 0 = none")
    atoms: int = static(0, ge=0, unit="atoms", help="of a C51 head; 0 = scalar values")
    value_max: float = static(10.0, gt=0, unit="clipped return", help="support of categorical heads is +- this")
    loss: str = static("huber", choices=("huber", "mse"), help="of scalar values; huber has its corner at 1")
    gamma: float = static(0.99, ge=0, le=1, help="discount an agent step")
    n_step: int = static(1, ge=1, unit="agent steps", help="of a return before it bootstraps")

    priority: str = static("none", choices=PRIORITIES, help="what a transition is drawn by; none = uniformly")
    priority_exponent: float = static(1.0, ge=0, help="applied to priorities as they are written")
    importance_start: float = static(0.4, ge=0, le=1, help="exponent of importance weights at the start")
    importance_end: float = static(1.0, ge=0, le=1, help="and at the end of training, linearly")
    uniform_share: float = static(0.0, ge=0, le=1, help="share of draws that are uniform all the same")

    batch_size: int = static(32, ge=1, unit="transitions", help="of an update")
    replay_ratio: float = static(0.25, gt=0, unit="updates an agent step", help="0.25 is one update every 4 steps")
    replay_steps: int = static(1_000_000, ge=1, unit="agent steps", help="capacity of the replay")
    min_replay_steps: int = static(20_000, ge=1, unit="agent steps", help="before the first update")
    target_updates: int = static(2_000, ge=1, unit="updates", help="between copies into the target network")
    max_gradient_norm: float = static(0.0, ge=0, help="gradients are scaled down to this norm; 0 = never")

    epsilon_start: float = static(1.0, ge=0, le=1, help="share of random actions until updates begin")
    epsilon_end: float = static(0.01, ge=0, le=1, help="share of random actions after the decay")
    epsilon_decay_steps: int = static(250_000, ge=1, unit="agent steps", help="of the linear decay")
    eval_epsilon: float = static(0.001, ge=0, le=1, help="share of random actions in evaluation")

    def validate(self) -> None:
        if self.atoms == 1:
            raise UserError(f"{self.name}: one of atoms cannot span +-value_max; give 0 (scalar values) or at least 2")
        if self.min_replay_steps > self.replay_steps:
            raise UserError(
                f"{self.name}: min_replay_steps ({self.min_replay_steps}) is beyond replay_steps ({self.replay_steps})"
            )

    def epsilon(self, steps: int) -> float:
        """Share of random actions after `steps` agent steps: constant until updates begin, then linear decay."""
        done = min(max(steps - self.min_replay_steps, 0) / self.epsilon_decay_steps, 1.0)
        return self.epsilon_start + done * (self.epsilon_end - self.epsilon_start)

    def importance(self, share: float) -> float:
        """Exponent of the importance weights after a share of the training, 0 to 1."""
        return self.importance_start + min(max(share, 0.0), 1.0) * (self.importance_end - self.importance_start)


agents: Family[AgentConfig] = Family("agent", "rl.agents")
