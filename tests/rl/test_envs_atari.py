"""Atari rows against the emulator itself, driven frame by frame, and against what the protocol promises."""

import importlib.metadata

import ale_py
import numpy as np
import pytest

from plasticity.errors import UserError
from rl.envs import actions_of, ale, envpool, make, spec_of
from rl.protocols import protocols

MACHADO = protocols.members()["machado"]
PLAIN_RULES = MACHADO(sticky=0)
NOOP, FIRE = 0, 1


def _envpool_version() -> str:
    try:
        return importlib.metadata.version("envpool")
    except importlib.metadata.PackageNotFoundError:
        return ""


BACKENDS = [
    "ale",
    pytest.param("envpool", marks=pytest.mark.skipif(not _envpool_version(), reason="envpool is not installed")),
]


def _area_weights(small: int, large: int) -> np.ndarray:
    """`[small, large]`: the share of each large pixel in the mean that makes a small one."""
    edges = np.arange(small + 1) * large / small
    pixels = np.arange(large)
    low, high = np.maximum(edges[:-1, None], pixels), np.minimum(edges[1:, None], pixels + 1)
    return np.clip(high - low, 0, None) * small / large


class Emulator:
    """The one-game interface of ale-py with skipping, pooling and resizing written out."""

    def __init__(self, rom: str, full: bool = False):
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self.ale = ale_py.ALEInterface()
        self.ale.setFloat("repeat_action_probability", 0.0)
        self.ale.loadROM(ale.rom_path(rom))
        self.actions = self.ale.getLegalActionSet() if full else self.ale.getMinimalActionSet()

    def frame(self, *screens: np.ndarray) -> np.ndarray:
        screen = np.max(screens, axis=0).astype(float)
        return _area_weights(84, screen.shape[0]) @ screen @ _area_weights(84, screen.shape[1]).T

    def reset(self) -> np.ndarray:
        self.ale.reset_game()
        return self.frame(self.ale.getScreenGrayscale())

    def step(self, action: int) -> tuple[np.ndarray, float, bool, int]:
        reward, screens = 0.0, []
        for _ in range(4):
            reward += self.ale.act(self.actions[action])
            screens.append(self.ale.getScreenGrayscale())
            if self.ale.game_over():
                break
        return self.frame(*screens[-2:]), reward, self.ale.game_over(), self.ale.lives()


@pytest.mark.parametrize(
    ("rom", "full", "limit"),
    [("space_invaders", False, 1_602), ("breakout", False, 108_000), ("seaquest", True, 1_000)],
)
def test_rows_are_those_of_the_emulator(rom, full, limit):
    emulator = Emulator(rom, full)
    env = make(rom, 1, MACHADO(sticky=0, full_actions=full, episode_frames=limit))
    row = env.restart([3])
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(row.frame[0, :, :, 0], emulator.reset(), atol=0.51)
    rewards, ends, cuts, lives, steps = [], 0, 0, [row.lives[0]], 0
    for _ in range(600):
        action = int(rng.integers(env.spec.actions))
        env.send(np.array([action]))
        ended, row = row.over[0] or row.truncated[0], env.recv()
        if ended:
            assert row.first[0]
            frame, reward, over, steps = emulator.reset(), 0.0, False, 0
            ends += 1
        else:
            frame, reward, over, left = emulator.step(action)
            assert row.lives[0] == left
            steps += 1
        cut = 4 * steps >= limit and not over
        cuts += cut
        if not over:  # where the game ends within the four frames, the library gives the frame before
            np.testing.assert_allclose(row.frame[0, :, :, 0], frame, atol=0.51)
        assert (row.reward[0], row.over[0], row.truncated[0]) == (reward, over, cut)
        rewards.append(reward)
        lives.append(row.lives[0])
    assert ends, "the test is meant to see a game end"
    assert cuts or limit > 10_000, "and episodes cut off, with their last frames right"
    assert len(set(lives)) > 1
    if rom != "breakout":
        assert max(rewards) > 1, "the test is meant to see rewards that clipping would change"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("frames", [100, 42])
def test_episodes_are_cut_off_at_the_frame_limit(backend, frames):
    env = make("pong", 2, MACHADO(sticky=0, episode_frames=frames), backend=backend)
    env.restart([0, 1])
    last = -(-frames // 4)
    for t in range(1, 3 * last):
        env.send(np.zeros(2, np.int32))
        row = env.recv()
        place = t % (last + 1)
        assert not row.over.any()
        assert (row.truncated == (place == last)).all()
        assert (row.first == (place == 0)).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_lives_fall_and_the_game_ends_with_the_last(backend):
    env = make("breakout", 1, PLAIN_RULES, backend=backend)
    lives, rows = [int(env.restart([0]).lives[0])], []
    while not rows or not rows[-1].over[0]:
        env.send(np.array([FIRE]))
        rows.append(env.recv())
        lives.append(int(rows[-1].lives[0]))
        assert len(rows) < 300
    assert [a for a, b in zip(lives, [*lives[1:], -1], strict=True) if a != b] == [5, 4, 3, 2, 1, 0]
    assert all(not r.over[0] for r in rows[:-1])
    env.send(np.array([FIRE]))
    row = env.recv()
    assert row.first[0]
    assert row.lives[0] == 5


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_game_over_in_the_last_allowed_step_is_over_and_not_truncated(backend):
    def end(limit: int) -> tuple[int, bool, bool]:
        env = make("breakout", 1, MACHADO(sticky=0, episode_frames=limit), backend=backend)
        env.restart([0])
        for t in range(1, 300):
            env.send(np.array([FIRE]))
            row = env.recv()
            if row.over[0] or row.truncated[0]:
                return t, bool(row.over[0]), bool(row.truncated[0])
        raise AssertionError("no end")

    steps, over, _ = end(108_000)
    assert over
    assert end(4 * steps) == (steps, True, False)
    assert end(4 * (steps - 1)) == (steps - 1, False, True)


def test_rewards_are_not_clipped_on_envpool_either():
    if not _envpool_version():
        pytest.skip("envpool is not installed")
    env = make("space_invaders", 2, MACHADO(), backend="envpool")
    env.restart([0, 1])
    rng, rewards = np.random.default_rng(0), []
    for _ in range(300):
        env.send(rng.integers(env.spec.actions, size=2))
        rewards += env.recv().reward.tolist()
    assert max(rewards) >= 5


def test_random_noops_are_at_most_what_the_protocol_says_and_reach_it():
    # Of each environment's first frames, with the emulator's own number of frames as the witness.
    env = make("pong", 12, MACHADO(sticky=0, noop_max=2))
    assert isinstance(env, ale.AleEnv)
    _, info = env._library.reset(seed=np.arange(12, dtype=np.int32))
    assert set(info["frame_number"].tolist()) == {0, 1, 2}


def test_sticky_actions_are_drawn_at_all_and_again_in_each_episode():
    # With FIRE once and no move after it Breakout is the same game each time, unless FIRE sticks or fails to.
    def lengths(protocol):
        env = make("breakout", 4, protocol)
        row, found, t = env.restart([0, 1, 2, 3]), [], np.zeros(4, int)
        rng = np.random.default_rng(0)
        for _ in range(700):
            env.send(np.full(4, rng.integers(4), np.int32))
            t, row = np.where(row.first, 0, t + 1), env.recv()
            found += t[row.over].tolist()
        return found

    assert len(set(lengths(MACHADO())) - {lengths(PLAIN_RULES)[0]}) > 2


def test_the_number_of_actions_is_known_without_environments():
    for rom, minimal in (("pong", 6), ("breakout", 4), ("freeway", 3), ("seaquest", 18)):
        assert actions_of(rom, MACHADO()) == minimal
        assert actions_of(rom, MACHADO(full_actions=True)) == 18
        assert actions_of(rom, MACHADO(), sequence_actions=True) == 18
        assert actions_of(rom, MACHADO(full_actions=True), sequence_actions=False) == minimal
    env = make("freeway", 1, MACHADO(), sequence_actions=True)
    assert env.spec == spec_of("freeway", MACHADO(), sequence_actions=True)
    env.restart([0])
    env.send(np.array([17]))
    assert env.recv().reward[0] == 0


def test_a_missing_or_foreign_rom_is_a_user_error(tmp_path, monkeypatch):
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    with pytest.raises(UserError, match=r"no ROM of game 'pong'.*ALE_ROMS_DIR"):
        make("pong", 1, MACHADO(full_actions=True))
    (tmp_path / "pong.bin").write_bytes(b"not a ROM")
    with pytest.raises(UserError, match="cannot be used"):
        make("pong", 1, MACHADO(full_actions=True))


def test_missing_packages_are_user_errors_with_the_command(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(ale.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install 'ale-py"):
        make("pong", 1, MACHADO(full_actions=True))
    monkeypatch.setattr(envpool.importlib.metadata, "version", absent)
    with pytest.raises(UserError, match="pip install 'envpool=="):
        make("pong", 1, MACHADO(), backend="envpool")
    monkeypatch.setattr(envpool.importlib.metadata, "version", lambda name: "0.8.4")
    with pytest.raises(UserError, match=r"envpool 0\.8\.4 is not known to work"):
        make("pong", 1, MACHADO(), backend="envpool")


@pytest.mark.slow
def test_every_game_in_the_list_runs():
    from rl.envs import games

    for game in games().values():
        if game.suite == "atari":
            env = make(game, 1, MACHADO())
            assert env.restart([0]).first.all()
            env.send(np.zeros(1, np.int32))
            env.recv()
            env.close()
