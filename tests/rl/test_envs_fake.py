"""The fake game, by hand: everything else in the RL tests leans on these rows."""

import numpy as np
import pytest

from plasticity.errors import UserError
from rl.envs import make
from rl.envs.fake import FakeGame
from rl.envs.stepped import SteppedEnv
from rl.protocols import protocols

PLAIN = protocols.members()["plain"]


def _play(env, seeds, actions):
    rows = [env.restart(seeds)]
    for a in actions:
        env.send(np.full(env.envs, a))
        rows.append(env.recv())
    return rows


def test_an_episode_by_hand():
    env = SteppedEnv(lambda: FakeGame(shape=(2,), actions=3, steps=4, life_steps=2), envs=1, limit=100)
    rows = _play(env, [1], [1, 1, 0, 1, 2, 1])
    # t:      0   1   2   3   4 | 0   1
    assert [int(r.frame[0, 0]) for r in rows] == [16, 17, 18, 19, 20, 32, 33]
    assert [float(r.reward[0]) for r in rows] == [0, 1, -1, 3, 4, 0, 1]
    assert [int(r.lives[0]) for r in rows] == [2, 2, 1, 1, 0, 2, 2]
    assert [bool(r.over[0]) for r in rows] == [False] * 4 + [True] + [False] * 2
    assert [bool(r.first[0]) for r in rows] == [True] + [False] * 4 + [True] + [False]
    assert not any(r.truncated[0] for r in rows)


def test_truncation_by_hand():
    env = make("fake", 2, PLAIN(episode_frames=3))
    assert (env.spec.shape, env.spec.dtype, env.spec.actions) == ((84, 84, 1), "uint8", 4)
    rows = _play(env, [0, 5], [1, 2, 3, 0, 1])
    assert [r.frame[:, 83, 83, 0].tolist() for r in rows] == [[0, 80], [1, 81], [2, 82], [3, 83], [16, 96], [17, 97]]
    assert [r.truncated.tolist() for r in rows] == [[False] * 2] * 3 + [[True] * 2] + [[False] * 2] * 2
    assert [r.reward.tolist() for r in rows] == [[0, 0], [1, 1], [2, 2], [3, 3], [0, 0], [1, 1]]
    assert not any(r.over.any() for r in rows)


def test_an_end_at_the_limit_is_over_and_not_truncated():
    env = make("fake", 1, PLAIN(episode_frames=12))
    last = _play(env, [0], [0] * 12)[-1]
    assert (last.over[0], last.truncated[0], last.lives[0]) == (True, False, 0)


def test_lives_must_divide_the_episode():
    with pytest.raises(UserError, match="multiple of life_steps"):
        FakeGame(steps=5, life_steps=2)
