"""The agents of DQN Zoo (Quan & Ostrovski 2020, github.com/google-deepmind/dqn_zoo), with its hyperparameters.

Its periods are in frames (4 an agent step, 16 an update): 40,000 frames are 2,500 updates, 4 million frames a million
agent steps. It clips the gradient of the mean squared loss to +- 1/32 an example, at batch size 32: that is the Huber
loss. Its resize is bilinear, its no-ops up to 30, and a lost life zeroes the discount (protocol `nature`).
"""

from __future__ import annotations

from plasticity.presets import preset
from rl.agents.base import AgentConfig, agents

NETWORK = "nature(padding=VALID, init=uniform)"
RMSPROP = "rmsprop(2.5e-4, decay=0.95, eps=9.765625e-6, centered=true)"


@agents.register("dqn")
@preset(
    min_replay_steps=50_000,
    target_updates=2_500,
    epsilon_end=0.1,
    epsilon_decay_steps=1_000_000,
    eval_epsilon=0.05,
)
class DQN(AgentConfig):
    """Deep Q-learning with a target network."""

    reference = "Mnih et al. 2015, Nature 518; hyperparameters of DQN Zoo"
    network, optimizer, protocol = NETWORK, RMSPROP, "nature"


@agents.register("double_dqn")
@preset(
    double=True,
    min_replay_steps=50_000,
    target_updates=7_500,
    epsilon_end=0.01,
    epsilon_decay_steps=1_000_000,
    eval_epsilon=0.01,
)
class DoubleDQN(AgentConfig):
    """DQN whose next action is selected by the online network."""

    reference = "van Hasselt et al. 2016, arXiv:1509.06461; hyperparameters of DQN Zoo"
    network, optimizer, protocol = NETWORK, RMSPROP, "nature"


@agents.register("prioritized")
@preset(
    double=True,
    priority="td",
    priority_exponent=0.6,
    uniform_share=1e-3,
    min_replay_steps=50_000,
    target_updates=7_500,
    epsilon_end=0.01,
    epsilon_decay_steps=1_000_000,
    eval_epsilon=0.01,
)
class Prioritized(AgentConfig):
    """Double DQN that draws transitions by their TD error; a quarter of the learning rate."""

    reference = "Schaul et al. 2016, arXiv:1511.05952; hyperparameters of DQN Zoo"
    network, protocol = NETWORK, "nature"
    optimizer = "rmsprop(6.25e-5, decay=0.95, eps=9.765625e-6, centered=true)"


@agents.register("c51")
@preset(
    atoms=51,
    min_replay_steps=50_000,
    target_updates=2_500,
    max_gradient_norm=10.0,
    epsilon_end=0.01,
    epsilon_decay_steps=1_000_000,
    eval_epsilon=0.001,
)
class C51(AgentConfig):
    """DQN that learns the distribution of returns on 51 atoms."""

    reference = "Bellemare et al. 2017, arXiv:1707.06887; hyperparameters of DQN Zoo"
    network, protocol = NETWORK, "nature"
    optimizer = "adam(2.5e-4, eps=3.125e-4)"


@agents.register("rainbow")
@preset(
    double=True,
    dueling=True,
    noise=0.1,
    atoms=51,
    n_step=3,
    priority="loss",
    priority_exponent=0.5,
    uniform_share=1e-3,
    max_gradient_norm=10.0,
    epsilon_start=0.0,
    epsilon_end=0.0,
    eval_epsilon=0.0,
)
class Rainbow(AgentConfig):
    """All six extensions: double, dueling, n-step, prioritised, distributional, noisy. No random actions."""

    reference = "Hessel et al. 2018, arXiv:1710.02298; hyperparameters of DQN Zoo"
    network, protocol = NETWORK, "nature"
    optimizer = "adam(6.25e-5, eps=1.5625e-4)"
