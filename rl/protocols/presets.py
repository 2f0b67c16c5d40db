"""The protocols of the literature. Frame skip is 4 in all of them (Machado et al. 2018 wrote 5; later work uses 4)."""

from __future__ import annotations

from plasticity.presets import preset
from rl.protocols.base import ProtocolConfig, protocols


@protocols.register("machado")
@preset(sticky=0.25)
class Machado(ProtocolConfig):
    """Sticky actions, no life signal, no random no-ops, minimal actions: what Dopamine's curves were made with.

    Machado et al. recommend the full action set and 18,000 frames an episode: `machado(full_actions=true,
    episode_frames=18000)`.
    """

    reference = "Machado et al. 2018, arXiv:1709.06009; as in Castro et al. 2018 (Dopamine), arXiv:1812.06110"


@protocols.register("nature")
@preset(noop_max=30, life_loss="discount")
class Nature(ProtocolConfig):
    """No sticky actions, up to 30 no-ops, a lost life ends the bootstrap but not the game (as in DQN Zoo)."""

    reference = "Mnih et al. 2015, Nature 518"


@protocols.register("atari100k")
@preset(noop_max=30, life_loss="episode")
class Atari100k(ProtocolConfig):
    """As `nature`, but for the agent a lost life ends the episode: for 100,000 agent steps (400,000 frames)."""

    reference = "Kaiser et al. 2020, arXiv:1903.00374; van Hasselt et al. 2019, arXiv:1906.05243"


@protocols.register("minatar")
@preset(sticky=0.1, stack=1, episode_frames=5_000, clip_reward=False)
class MinAtar(ProtocolConfig):
    """MinAtar's own sticky actions, no stacking (motion is in the channels), episodes of at most 5,000 frames."""

    reference = "Young & Tian 2019, arXiv:1903.03176"


@protocols.register("plain")
@preset(stack=1, clip_reward=False)
class Plain(ProtocolConfig):
    """Signals as they come: for probe environments and vector observations."""
