"""What a protocol fixes: sticky actions, no-ops, actions, episode length; for the agent stacking, clipping, lives."""

from __future__ import annotations

from typing import ClassVar

from plasticity.config import Config, config, static
from plasticity.registry import Family


@config
class ProtocolConfig(Config):
    """Fields that every protocol has; a preset changes their defaults."""

    name: ClassVar[str]
    reference: ClassVar[str] = ""

    sticky: float = static(0.0, ge=0, le=1, unit="probability", help="of repeating the last action, per emulator frame")
    noop_max: int = static(0, ge=0, unit="agent steps", help="most random no-ops at the start of an episode")
    full_actions: bool = static(False, help="all 18 actions instead of the game's minimal set")
    episode_frames: int = static(108_000, ge=1, unit="frames", help="episodes are truncated after so many")
    stack: int = static(4, ge=1, unit="frames", help="newest frames that make an observation")
    clip_reward: bool = static(True, help="learn from the sign of rewards only; scores are never clipped")
    life_loss: str = static(
        "off", choices=("off", "discount", "episode"), help="discount: no bootstrap past it; episode: a new stack too"
    )


protocols: Family[ProtocolConfig] = Family("protocol", "rl.protocols")
