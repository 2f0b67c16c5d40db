"""Atari games by ale-py's vector environment: C++ threads, frames of 84 x 84 grey levels, 4 emulator frames a step.

Of the library's options only those are used that shape the game itself; what belongs to the agent is off (stacking,
reward clipping, its two options about lives, the FIRE action at a reset). Each frame is the maximum over the last two
emulator frames, except that after a reset, as in Mnih et al. 2015; resized by area.

Facts of ale-py 0.12 that this adapter builds on, each of them tested:
* `noop_max=n` draws from 0 to n - 1 no-ops, so that one more is asked for; they are emulator frames, not agent steps,
  and do not count towards the length of an episode;
* where the library cuts an episode off, its last frame is not pooled from the screens shown but a ghost of the one
  before; truncation bootstraps from that frame, so episodes are cut off here, by a reset of single environments (which
  ale-py 0.11 cannot do), at the step that ceil(episode_frames / 4) gives;
* the last frame of a game that ends by itself within the 4 frames is the one before, too; nothing bootstraps from it;
* a reset with a seed reseeds both the no-ops and the sticky actions of that environment, whatever happened before;
* with all environments in a batch, rows come in the order of the environments.

Bellemare et al. 2013, arXiv:1207.4708; sticky actions: Machado et al. 2018, arXiv:1709.06009.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
from pathlib import Path

import numpy as np

from plasticity.errors import UserError
from rl.envs.adapter import Adapter, default_threads
from rl.envs.base import EnvSpec
from rl.protocols import ProtocolConfig

FRAMES_PER_STEP = 4
SHAPE = (84, 84, 1)
SCREEN = (210, 160, 3)
FULL_ACTIONS = 18
_NEVER = 10**9  # frames; the library's own limit


def _check_installed() -> None:
    if importlib.util.find_spec("ale_py") is None or importlib.util.find_spec("gymnasium") is None:
        raise UserError("Atari games need ale-py and gymnasium: pip install 'ale-py>=0.12' 'gymnasium>=1.2'")


def rom_path(rom: str) -> Path:
    """The file of a ROM. Raises UserError where there is none or it is not the known one."""
    _check_installed()
    from ale_py import roms

    folder = Path(os.environ.get("ALE_ROMS_DIR") or str(Path(roms.__file__).parent))
    if not (folder / f"{rom}.bin").is_file():
        raise UserError(
            f"no ROM of game {rom!r}: {folder / rom}.bin does not exist (ALE_ROMS_DIR overrides the folder)"
        )
    try:
        path = roms.get_rom_path(rom)
    except OSError as error:
        raise UserError(f"ROM of game {rom!r} cannot be used: {error}") from error
    if path is None:
        raise UserError(f"ale-py does not know a game {rom!r}")
    return path


@functools.cache
def minimal_actions(rom: str) -> int:
    """How many actions have an effect in the game; no threads are started."""
    path = rom_path(rom)
    import ale_py

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # or it prints a banner
    ale = ale_py.ALEInterface()
    ale.loadROM(path)
    return len(ale.getMinimalActionSet())


def spec(rom: str, protocol: ProtocolConfig) -> EnvSpec:
    """Frames `[84, 84, 1]` uint8; the game's minimal actions, or 18 under `full_actions`."""
    actions = FULL_ACTIONS if protocol.full_actions else minimal_actions(rom)
    return EnvSpec(SHAPE, "uint8", actions, FRAMES_PER_STEP)


class AleEnv(Adapter):
    """`envs` copies of one Atari game, emulated by `threads` C++ threads (0: one for each CPU, at most `envs`).

    `send` returns at once and the emulation goes on; the rows are the same for any number of threads.
    """

    def __init__(
        self, rom: str, envs: int, protocol: ProtocolConfig, threads: int = 0, *, screen: bool = False
    ) -> None:
        """screen: the whole screen in colour, `[210, 160, 3]`, for people to look at."""
        own = spec(rom, protocol)
        super().__init__(dataclasses.replace(own, shape=SCREEN) if screen else own, envs)
        rom_path(rom)
        from ale_py.vector_env import AtariVectorEnv

        self._library = AtariVectorEnv(
            rom,
            num_envs=envs,
            num_threads=default_threads(envs, threads),
            max_num_frames_per_episode=_NEVER,
            repeat_action_probability=protocol.sticky,
            full_action_space=protocol.full_actions,
            # `noop_max` there is exclusive: 0 and 1 both mean none.
            noop_max=protocol.noop_max + 1 if protocol.noop_max else 0,
            frameskip=FRAMES_PER_STEP,
            stack_num=1,
            img_height=self.spec.shape[0],
            img_width=self.spec.shape[1],
            grayscale=not screen,
            reward_clipping=False,
            episodic_life=False,
            life_loss_info=False,
            use_fire_reset=False,
        )

        self._limit = -(-protocol.episode_frames // FRAMES_PER_STEP)  # agent steps
        self._steps = np.zeros(envs, np.int64)
        self._cut = np.zeros(envs, bool)  # episodes cut off with the newest row; the library knows nothing of it

    def _restart(self, seeds: list[int]) -> tuple[np.ndarray, np.ndarray]:
        frame, info = self._library.reset(seed=np.array(seeds, np.int32))
        self._steps[:] = 0
        self._cut[:] = False
        return frame.reshape(self.envs, *self.spec.shape), info["lives"]

    def _send(self, actions: np.ndarray) -> None:
        self._library.send(actions)

    def _recv(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        frame, reward, over, _, info = self._library.recv()
        lives = info["lives"]
        if self._cut.any():
            # These went on for a step, unasked; that step never happened, and the reset row takes its place.
            fresh, info = self._library.reset(options={"reset_mask": self._cut})
            frame[self._cut], lives[self._cut] = fresh[self._cut], info["lives"][self._cut]
            reward, over = np.where(self._cut, 0, np.asarray(reward)), over & ~self._cut
        assert self._ended is not None  # `recv` comes after `restart`
        self._steps = np.where(self._ended, 0, self._steps + 1)
        self._cut = (self._steps >= self._limit) & ~over
        return frame.reshape(self.envs, *self.spec.shape), reward, over, self._cut, lives

    def _close(self) -> None:
        del self._library  # its destructor joins the threads; the library's own close() does nothing
