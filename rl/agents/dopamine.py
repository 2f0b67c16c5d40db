"""The agents of Dopamine's JAX branch (Castro et al. 2018, arXiv:1812.06110), with its hyperparameters.

Its periods are in agent steps (4 an update): a target period of 8,000 steps is 2,000 updates. The published curves of
"DQN (Adam + MSE in JAX)" are `dopamine_dqn`, those of "Rainbow" are `dopamine_rainbow`: C51, n-step and prioritised
replay, without noise, dueling streams or double Q. Its resize is by area. Protocol `machado`.
"""

from __future__ import annotations

from plasticity.presets import preset
from rl.agents.base import AgentConfig, agents

SHARED = {"importance_start": 0.5, "importance_end": 0.5, "priority": "sqrt_loss"}


@agents.register("dopamine_dqn")
@preset(loss="mse")
class DopamineDQN(AgentConfig):
    """DQN with Adam and the mean squared error."""

    reference = "Castro et al. 2018, arXiv:1812.06110; Ceron & Castro 2021, arXiv:2011.14826"


@agents.register("dopamine_rainbow")
@preset(atoms=51, n_step=3, **SHARED)
class DopamineRainbow(AgentConfig):
    """Compact Rainbow: distributional, n-step, prioritised."""

    reference = "Castro et al. 2018, arXiv:1812.06110"


@agents.register("dopamine_full_rainbow")
@preset(atoms=51, n_step=3, double=True, dueling=True, noise=0.1, **SHARED)
class DopamineFullRainbow(AgentConfig):
    """All six extensions; noise and random actions together."""

    reference = "Ceron & Castro 2021, arXiv:2011.14826"


@agents.register("der")
@preset(
    atoms=51,
    n_step=10,
    double=True,
    dueling=True,
    noise=0.1,
    replay_ratio=1.0,
    min_replay_steps=1_600,
    epsilon_decay_steps=2_000,
    **SHARED,
)
class DER(AgentConfig):
    """Data-efficient Rainbow: an update every agent step, for 100,000 of them."""

    reference = "van Hasselt et al. 2019, arXiv:1906.05243"
    optimizer, protocol = "adam(1e-4, eps=1.5e-4)", "atari100k"


@agents.register("drq_eps")
@preset(
    n_step=10,
    double=True,
    dueling=True,
    replay_ratio=1.0,
    min_replay_steps=1_600,
    target_updates=1,
    epsilon_decay_steps=5_000,
)
class DrQEps(AgentConfig):
    """The agent of DrQ(eps) without its image augmentation: double, dueling, 10 steps, uniform replay."""

    reference = "Agarwal et al. 2021, arXiv:2108.13264"
    optimizer, protocol = "adam(1e-4, eps=1.5e-4)", "atari100k"
