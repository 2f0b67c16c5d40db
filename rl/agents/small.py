"""Agents for small games on a CPU: MinAtar in a minute or two. Sizes are this suite's own, chosen in pilot runs."""

from __future__ import annotations

from plasticity.presets import preset
from rl.agents.base import AgentConfig, agents

SMALL = {
    "replay_steps": 100_000,
    "min_replay_steps": 2_000,
    "target_updates": 250,
    "epsilon_end": 0.05,
    "epsilon_decay_steps": 25_000,
}


@agents.register("small_dqn")
@preset(**SMALL)
class SmallDQN(AgentConfig):
    """DQN with Adam for MinAtar games."""

    network, optimizer, protocol = "minatar", "adam(2.5e-4, eps=1e-6)", "minatar"


@agents.register("small_rainbow")
@preset(
    double=True,
    dueling=True,
    noise=0.1,
    atoms=51,
    n_step=3,
    priority="loss",
    priority_exponent=0.5,
    value_max=25.0,
    **SMALL,
)
class SmallRainbow(AgentConfig):
    """Rainbow for MinAtar games; values are on +- 25, as the games' rewards not being clipped."""

    network, optimizer, protocol = "minatar", "adam(2.5e-4, eps=1e-6)", "minatar"
