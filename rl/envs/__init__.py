"""Games behind one contract (`rl.envs.base`): `make(game, envs, protocol)` gives raw rows of many environments."""

from rl.envs.base import EnvSpec, Row, VecEnv
from rl.envs.games import ATARI_57, MINATAR, SETS, Game, games, get, normalized
from rl.envs.make import BACKENDS, actions_of, make, spec_of

__all__ = [
    "ATARI_57",
    "BACKENDS",
    "MINATAR",
    "SETS",
    "EnvSpec",
    "Game",
    "Row",
    "VecEnv",
    "actions_of",
    "games",
    "get",
    "make",
    "normalized",
    "spec_of",
]
