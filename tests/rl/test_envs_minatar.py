"""MinAtar rows against the library's own `Environment`, bit for bit."""

import logging
import subprocess
import sys

import numpy as np
import pytest

from plasticity.errors import UserError
from rl.envs import MINATAR, actions_of, make
from rl.envs import minatar as adapter
from rl.protocols import protocols

PROTOCOL = protocols.members()["minatar"]


@pytest.fixture(scope="module")
def environment():
    """The library's class. Importing it may warn through the root logger that there is nothing to draw with."""
    level = logging.root.level
    logging.disable(logging.WARNING)
    try:
        from minatar import Environment
    finally:
        logging.disable(logging.NOTSET)
        logging.root.setLevel(level)
    return Environment


@pytest.mark.parametrize("name", MINATAR)
@pytest.mark.parametrize("full", [False, True])
def test_rows_are_those_of_the_library(name, full, environment):
    env = make(name, 2, PROTOCOL(sticky=0.3, full_actions=full))
    seeds = [4, 11]
    theirs = []
    for seed in seeds:
        game = environment(name.removeprefix("minatar_"), sticky_action_prob=0.3)
        game.seed(seed)
        game.reset()
        theirs.append(game)
    minimal = list(range(6)) if full else theirs[0].minimal_action_set()
    assert env.spec.actions == len(minimal)
    row, rng, ends = env.restart(seeds), np.random.default_rng(0), 0
    for _ in range(3000):
        actions = rng.integers(env.spec.actions, size=2)
        env.send(actions)
        before, row = row, env.recv()
        for i, game in enumerate(theirs):
            if before.over[i] or before.truncated[i]:
                game.reset()
                reward, over = 0, False
                ends += 1
            else:
                reward, over = game.act(minimal[actions[i]])
            np.testing.assert_array_equal(row.frame[i], 255 * game.state())
            assert (row.reward[i], row.over[i]) == (reward, over)
    assert ends or "freeway" in name


def test_episodes_are_cut_off_and_have_no_lives():
    env = make("minatar_freeway", 1, PROTOCOL(episode_frames=20))
    env.restart([0])
    for t in range(1, 60):
        env.send(np.zeros(1, np.int32))
        row = env.recv()
        assert bool(row.truncated[0]) == (t % 21 == 20)
        assert row.lives[0] == 0


def test_actions_are_shared_when_the_full_set_is_asked_for():
    assert {actions_of(name, PROTOCOL(), sequence_actions=True) for name in MINATAR} == {6}
    assert actions_of("minatar_breakout", PROTOCOL()) == 3


def test_random_noops_are_steps_of_the_game():
    env = make("minatar_freeway", 40, PROTOCOL(noop_max=2))
    frames = env.restart([0] * 40).frame
    assert (frames == frames[:1]).all(), "equal seeds, equal no-ops"
    env = make("minatar_breakout", 40, PROTOCOL(noop_max=2))
    ball_rows = np.nonzero(env.restart(range(40)).frame[..., 1])[1]
    assert set(ball_rows) == {3, 4, 5}, "the ball starts in row 3 and falls by one each step"


def test_absence_is_a_user_error_with_the_command(monkeypatch):
    adapter._module.cache_clear()
    monkeypatch.setattr(adapter.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install 'minatar"):
        make("minatar_breakout", 1, PROTOCOL())
    adapter._module.cache_clear()


def test_nothing_to_draw_with_is_imported():
    code = (
        "import sys; from rl.envs import actions_of; from rl.protocols import protocols; "
        "actions_of('minatar_breakout', protocols.members()['minatar']()); "
        "print([m for m in ('matplotlib', 'seaborn', 'minatar', 'envpool', 'ale_py') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
