"""The games by name: which suite each belongs to, its reference scores, and the sets that papers use.

Atari names are ale-py's ROM names (`pong`, `space_invaders`), MinAtar's are `minatar_breakout` and so on, probe
environments `probe_...` (`rl.envs.probes`), and `fake` is the hand-computable game of the tests.

Human-normalised score: (score - random) / (human - random), 0 for a random policy and 1 for the human tester.

Scores: Mnih et al. 2015 (Nature 518) extended to 57 games by Wang et al. 2016 (arXiv:1511.06581), as tabulated in DQN
Zoo (Quan & Ostrovski 2020). Sets: Sokar et al. 2023 (ReDo, arXiv:2302.12902), whose 17 games are those of Kumar et al.
2022 (DR3, arXiv:2112.04716).
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from plasticity.errors import UserError, unknown
from rl.envs.probes import PROBES


@dataclass(frozen=True)
class Game:
    """suite: `atari`, `minatar`, `probe` or `fake`. random, human: mean episode scores (game points), where known."""

    name: str
    suite: str
    random: float | None = None
    human: float | None = None


# game: (random, human)
_SCORES: dict[str, tuple[float, float]] = {
    "alien": (227.8, 7127.7),
    "amidar": (5.8, 1719.5),
    "assault": (222.4, 742),
    "asterix": (210, 8503.3),
    "asteroids": (719.1, 47388.7),
    "atlantis": (12850, 29028.1),
    "bank_heist": (14.2, 753.1),
    "battle_zone": (2360, 37187.5),
    "beam_rider": (363.9, 16926.5),
    "berzerk": (123.7, 2630.4),
    "bowling": (23.1, 160.7),
    "boxing": (0.1, 12.1),
    "breakout": (1.7, 30.5),
    "centipede": (2090.9, 12017),
    "chopper_command": (811, 7387.8),
    "crazy_climber": (10780.5, 35829.4),
    "defender": (2874.5, 18688.9),
    "demon_attack": (152.1, 1971),
    "double_dunk": (-18.6, -16.4),
    "enduro": (0, 860.5),
    "fishing_derby": (-91.7, -38.7),
    "freeway": (0, 29.6),
    "frostbite": (65.2, 4334.7),
    "gopher": (257.6, 2412.5),
    "gravitar": (173, 3351.4),
    "hero": (1027, 30826.4),
    "ice_hockey": (-11.2, 0.9),
    "jamesbond": (29, 302.8),
    "kangaroo": (52, 3035),
    "krull": (1598, 2665.5),
    "kung_fu_master": (258.5, 22736.3),
    "montezuma_revenge": (0, 4753.3),
    "ms_pacman": (307.3, 6951.6),
    "name_this_game": (2292.3, 8049),
    "phoenix": (761.4, 7242.6),
    "pitfall": (-229.4, 6463.7),
    "pong": (-20.7, 14.6),
    "private_eye": (24.9, 69571.3),
    "qbert": (163.9, 13455),
    "riverraid": (1338.5, 17118),
    "road_runner": (11.5, 7845),
    "robotank": (2.2, 11.9),
    "seaquest": (68.4, 42054.7),
    "skiing": (-17098.1, -4336.9),
    "solaris": (1236.3, 12326.7),
    "space_invaders": (148, 1668.7),
    "star_gunner": (664, 10250),
    "surround": (-10, 6.5),
    "tennis": (-23.8, -8.3),
    "time_pilot": (3568, 5229.2),
    "tutankham": (11.4, 167.6),
    "up_n_down": (533.4, 11693.2),
    "venture": (0, 1187.5),
    "video_pinball": (16256.9, 17667.9),
    "wizard_of_wor": (563.5, 4756.5),
    "yars_revenge": (3092.9, 54576.9),
    "zaxxon": (32.5, 9173.3),
}

ATARI_57: tuple[str, ...] = tuple(_SCORES)
"""The standard games, alphabetical."""

# Mean returns of the uniformly random policy over its minimal actions, sticky .1, 2,000 episodes each; measured here
# (tests/rl/test_rl_random_scores.py measures them again). Standard errors are below .02, space_invaders .07.
_MINATAR_RANDOM = {"asterix": 0.476, "breakout": 0.391, "freeway": 0.365, "seaquest": 0.094, "space_invaders": 4.13}

MINATAR: tuple[str, ...] = tuple(f"minatar_{name}" for name in _MINATAR_RANDOM)

SETS: dict[str, tuple[str, ...]] = {
    "smoke": ("minatar_breakout",),
    "minatar": MINATAR,
    # Low variance between seeds, or (phoenix) a plateau of the plain agent that its mitigations leave behind.
    "dev5": ("breakout", "beam_rider", "enduro", "phoenix", "demon_attack"),
    # Where published curves rise and fall again, or stop rising, as the agent loses plasticity.
    "plateau": ("phoenix", "wizard_of_wor", "breakout", "beam_rider"),
    "redo17": (
        *("asterix", "beam_rider", "breakout", "demon_attack", "double_dunk", "enduro", "ice_hockey", "jamesbond"),
        *("ms_pacman", "pong", "qbert", "road_runner", "seaquest", "space_invaders", "wizard_of_wor", "yars_revenge"),
        "zaxxon",
    ),
    "atari57": ATARI_57,
}
"""Sets of games by name: smaller ones for trying out, `redo17` for comparisons, `atari57` for all."""

# ale-py ships these ROMs, but they are for two players and its one-player interface refuses to load them.
_TWO_PLAYERS = ("combat", "joust", "maze_craze", "warlords")


@functools.cache
def _shipped() -> frozenset[str]:
    """Names of the ROMs in the installed ale-py, found without importing it (its library loads SDL)."""
    spec = importlib.util.find_spec("ale_py")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    return frozenset(rom.stem for folder in folders for rom in Path(folder, "roms").glob("*.bin"))


@functools.cache
def _all() -> dict[str, Game]:
    others = sorted(_shipped() - set(_SCORES) - set(_TWO_PLAYERS))
    found = [
        *(Game(name, "atari", *scores) for name, scores in _SCORES.items()),
        *(Game(name, "atari") for name in others),
        *(Game(f"minatar_{name}", "minatar", random) for name, random in _MINATAR_RANDOM.items()),
        *(Game(name, "probe") for name in PROBES),
        Game("fake", "fake"),
    ]
    return {game.name: game for game in found}


def games() -> dict[str, Game]:
    """All games by name: the 57, the other one-player ROMs of the installed ale-py, MinAtar, the probes, `fake`."""
    return dict(_all())


def get(name: str) -> Game:
    """The game of that name. Raises UserError with the nearest match for an unknown one."""
    if name in _all():
        return _all()[name]
    if name in _TWO_PLAYERS:
        raise UserError(f"game {name!r} is for two players; ale-py cannot run it as a one-player game")
    raise unknown("game", name, _all())


def normalized(game: Game | str, score: float) -> float:
    """Human-normalised score of a mean episode score (game points); arrays of scores work too.

    Raises UserError for a game without reference scores.
    """
    game = get(game) if isinstance(game, str) else game
    if game.random is None or game.human is None:
        raise UserError(
            f"game {game.name!r} has no random and human scores to normalise with; they exist for `atari57`"
        )
    return (score - game.random) / (game.human - game.random)
