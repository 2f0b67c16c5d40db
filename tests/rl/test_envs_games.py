"""Names, scores and sets of games, and the errors of `make` before anything is started."""

import pytest

from plasticity.errors import UserError
from rl.envs import ATARI_57, MINATAR, SETS, Game, games, get, make, normalized
from rl.envs.probes import PROBES
from rl.protocols import protocols

MACHADO = protocols.members()["machado"]()


def test_the_sets_have_their_sizes_and_only_known_games():
    assert {name: len(members) for name, members in SETS.items()} == {
        "smoke": 1,
        "minatar": 5,
        "dev5": 5,
        "plateau": 4,
        "redo17": 17,
        "atari57": 57,
    }
    for members in SETS.values():
        assert len(set(members)) == len(members)
        assert set(members) <= set(games())
    assert set(SETS["redo17"]) <= set(ATARI_57)


def test_games_of_all_suites_are_listed():
    found = games()
    assert {g.suite for g in found.values()} == {"atari", "minatar", "probe", "fake"}
    assert all(name == game.name for name, game in found.items())
    assert set(MINATAR) | set(PROBES) | {"fake"} <= set(found)
    found.clear()
    assert games(), "a caller's copy"


def test_games_outside_the_57_have_no_human_scores():
    assert get("tetris") == Game("tetris", "atari", None, None)
    assert all(get(name).random is not None and get(name).human is not None for name in ATARI_57)
    assert all(get(name).human is None for name in MINATAR)


def test_scores_are_normalised_to_random_and_human():
    pong = get("pong")
    assert (pong.random, pong.human) == (-20.7, 14.6)
    assert normalized(pong, -20.7) == 0
    assert normalized("pong", 14.6) == 1
    assert normalized("breakout", 23.7) == pytest.approx((23.7 - 1.7) / (30.5 - 1.7))
    assert [normalized("skiing", score) for score in (-17098.1, -4336.9)] == [0, 1]
    for name in ATARI_57:
        low, high = get(name).random, get(name).human
        assert low is not None
        assert high is not None
        assert low < high
    with pytest.raises(UserError, match="'minatar_breakout' has no random and human scores"):
        normalized("minatar_breakout", 1.0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pnog", "Did you mean 'pong'"),
        ("space-invaders", "Did you mean 'space_invaders'"),
        ("minatar_pong", "unknown game 'minatar_pong'"),
        ("combat", "for two players"),
        ("", "unknown game ''"),
    ],
)
def test_an_unknown_game_is_a_user_error(name, message):
    with pytest.raises(UserError, match=message):
        make(name, 1, MACHADO)


def test_numbers_and_backends_out_of_range_are_user_errors():
    with pytest.raises(UserError, match="number of environments must be >= 1, got 0"):
        make("pong", 0, MACHADO)
    with pytest.raises(UserError, match="threads must be >= 0"):
        make("pong", 1, MACHADO, threads=-1)
    with pytest.raises(UserError, match=r"unknown backend 'envpol'\. Did you mean 'envpool'"):
        make("pong", 1, MACHADO, backend="envpol")
    with pytest.raises(UserError, match="number of environments"):
        make("fake", 0, MACHADO)
