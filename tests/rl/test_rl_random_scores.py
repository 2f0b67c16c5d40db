"""The random scores of MinAtar's games are our own measurements: here they are measured again."""

import numpy as np
import pytest

from rl import envs
from rl.envs import MINATAR
from rl.episodes import Episodes
from rl.protocols import protocols

ENVS = 16


@pytest.mark.parametrize("game", MINATAR)
def test_the_random_policy_reaches_its_stated_score(game):
    """Within four standard errors of 300 episodes, plus those of the stated number."""
    env = envs.make(game, ENVS, protocols.get("minatar")())
    episodes, rng = Episodes(1, ENVS), np.random.default_rng(1)
    row = env.restart(list(range(100, 100 + ENVS)))
    while len(episodes.returns[0]) < 300:
        episodes.add(row)
        env.send(rng.integers(0, env.spec.actions, ENVS).astype(np.int32))
        row = env.recv()
    found = np.array(episodes.returns[0])
    stated = envs.get(game).random
    assert stated is not None
    assert abs(found.mean() - stated) < 4 * found.std() * (1 / 300 + 1 / 2000) ** 0.5
