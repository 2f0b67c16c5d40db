"""Published learning curves of others, to draw behind one's own: Dopamine's Atari baselines, where the user has them.

The file is an npz that holds, of Castro et al. 2018, "Dopamine: a research framework for deep reinforcement learning",
arXiv:1812.06110 (`baselines/atari/data/` of its repository),

    main          float [games, agents, seeds, iterations]: raw training return of every iteration of 1M frames
    main_games    names of the games, lower case without separators     main_agents    names of the agents

It is data of somebody else: nothing of it is part of the suite, and every command works without it.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plasticity.errors import UserError

FRAMES = 1_000_000  # of one published iteration
AGENTS = {"dqn": "DQN (Adam + MSE in JAX)", "rainbow": "Rainbow"}
_KEYS = ("main", "main_games", "main_agents")


@dataclass(frozen=True, eq=False)
class Published:
    """Published raw returns. returns: [games, agents, seeds, iterations]; iteration k ends at (k + 1) * FRAMES."""

    path: Path
    games: tuple[str, ...]
    agents: tuple[str, ...]
    returns: np.ndarray

    def curve(self, game: str, agent: str) -> np.ndarray | None:
        """Raw returns [seeds, iterations] of our names of game and agent; None where nothing was published."""
        name, theirs = plain(game), AGENTS.get(agent)
        if name not in self.games or theirs not in self.agents:
            return None
        return self.returns[self.games.index(name), self.agents.index(theirs)]


def plain(game: str) -> str:
    """The name of a game without case and separators: `beam_rider` and `BeamRider` are `beamrider`."""
    return re.sub(r"[^a-z0-9]", "", game.lower())


def read_published(path: str | Path) -> Published:
    """Read the file. Raises `UserError` that names what is wrong with it."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such file: {path} (--dopamine takes the npz of Dopamine's published Atari curves)")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as found:
            if missing := [k for k in _KEYS if k not in found.files]:
                raise UserError(f"{path} lacks {', '.join(missing)}; it must hold the arrays {', '.join(_KEYS)}")
            returns, games, agents = (found[k] for k in _KEYS)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {path}: not an npz file of arrays ({str(error).splitlines()[0]})") from None
    if returns.ndim != 4 or returns.shape[:2] != (games.size, agents.size) or returns.dtype.kind != "f":
        raise UserError(
            f"cannot use {path}: main has shape {returns.shape} and type {returns.dtype}, expected floats "
            f"[{games.size} games, {agents.size} agents, seeds, iterations]"
        )
    names = tuple(plain(str(g)) for g in games.ravel())
    return Published(path, names, tuple(str(a) for a in agents.ravel()), returns.astype(float))
