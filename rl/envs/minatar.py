"""The five MinAtar games: Atari's ideas on a 10 x 10 grid, one channel for each kind of object; CPU-sized.

Frames are `[10, 10, channels]` uint8, 255 where an object is: grey levels, as networks read them. One agent step is one
frame. Rows are those of the library's own `Environment` with the same seed, sticky actions included; tested bit for
bit. Its difficulty ramp is on.

Young & Tian 2019, arXiv:1903.03176; package MinAtar 1.0.15.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np

from plasticity.errors import UserError
from rl.envs.base import EnvSpec
from rl.protocols import ProtocolConfig

FULL_ACTIONS = 6


@functools.cache
def _module(name: str) -> ModuleType:
    """The library's module of one game, loaded from its file.

    `import minatar` would import pyplot and seaborn for its display: a second of start-up where they are installed,
    and where they are not, a warning through the root logger, which configures logging for the whole process.
    """
    package = importlib.util.find_spec("minatar")
    for folder in (package.submodule_search_locations or ()) if package else ():
        path = Path(folder, "environments", f"{name}.py")
        spec = importlib.util.spec_from_file_location(f"_minatar_{name}", path) if path.is_file() else None
        if spec and spec.loader:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise UserError(f"game 'minatar_{name}' needs MinAtar: pip install 'minatar>=1.0.15'")


class MinAtarGame:
    """One MinAtar game; `name` without the prefix. Random no-ops, if the protocol has any, are agent steps."""

    def __init__(self, name: str, protocol: ProtocolConfig) -> None:
        self._game = _module(name).Env(ramping=True)
        minimal = self._game.minimal_action_set()
        self._actions = list(range(FULL_ACTIONS)) if protocol.full_actions else minimal
        self._sticky = protocol.sticky
        self._noop_max = protocol.noop_max
        self._random = np.random.RandomState()
        self._last = 0
        self.spec = EnvSpec(tuple(self._game.state_shape()), "uint8", len(self._actions))

    def seed(self, seed: int) -> None:
        """One generator for the game and the sticky actions, and of numpy's old kind, as in the library."""
        self._random = self._game.random = np.random.RandomState(seed)
        self._last = 0

    def reset(self) -> tuple[np.ndarray, int]:
        """First frame, 0 lives. The last action stays for the sticky actions, as it does in the library."""
        self._game.reset()
        if self._noop_max:
            for _ in range(self._random.randint(self._noop_max + 1)):
                if self._game.act(0)[1]:
                    self._game.reset()
        return self._frame(), 0

    def step(self, action: int) -> tuple[np.ndarray, float, bool, int]:
        """Frame, reward, over, 0 lives; with probability `sticky` the action before is repeated."""
        wanted = self._actions[action]
        if self._random.rand() >= self._sticky:
            self._last = wanted
        reward, over = self._game.act(self._last)
        return self._frame(), float(reward), bool(over), 0

    def _frame(self) -> np.ndarray:
        return self._game.state().astype(np.uint8) * np.uint8(255)
