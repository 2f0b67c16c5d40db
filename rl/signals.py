"""From the raw signals of a row to what the agent learns from, by the protocol: clipping, lives, where stacks begin."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Int

from rl.envs.base import Row
from rl.protocols.base import ProtocolConfig
from rl.replay.ring import Stored


def stored(protocol: ProtocolConfig, lives: Int[Array, " envs"], row: Row) -> Stored:
    """A row as the replay keeps it. lives: of the row before; `row` holds arrays `[envs, ...]` on the device.

    A life is lost where the number falls within an episode; it ends the bootstrap under `life_loss=discount` and
    `episode`, and under the latter the stack of frames begins anew. The game goes on, and the next action is real.
    """
    lost = (row.lives < lives) & ~row.first
    counted = lost & (protocol.life_loss != "off")
    reward = jnp.clip(row.reward, -1.0, 1.0) if protocol.clip_reward else row.reward
    return Stored(
        frame=row.frame,  # pyrefly: ignore
        reward=reward,  # pyrefly: ignore
        term=row.over | counted,  # pyrefly: ignore
        stop=row.over | row.truncated,  # pyrefly: ignore
        first=row.first,  # pyrefly: ignore
        fresh=row.first | (counted & (protocol.life_loss == "episode")),  # pyrefly: ignore
    )
