"""One contract for every environment: what the agent may rely on, whichever game and backend it is given."""

import importlib.metadata
import time

import numpy as np
import pytest

from plasticity.errors import UserError
from rl.envs import Row, make
from rl.envs.probes import PROBES
from rl.protocols import protocols

ENVS = 3
STEPS = 40
MACHADO, NATURE, MINATAR, PLAIN = (protocols.members()[name] for name in ("machado", "nature", "minatar", "plain"))


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


ENVPOOL = pytest.mark.skipif(not _installed("envpool"), reason="envpool is not installed")

# Short episodes, so that truncation, and in breakout with FIRE the loss of lives, happen within STEPS.
CASES = {
    "sticky": ("breakout", MACHADO(episode_frames=100), "ale"),
    "noops": ("space_invaders", NATURE(noop_max=20, episode_frames=70), "ale"),
    "envpool_sticky": ("breakout", MACHADO(episode_frames=100), "envpool"),
    "envpool_noops": ("space_invaders", NATURE(noop_max=20, episode_frames=70), "envpool"),
    **{name: (f"minatar_{name}", MINATAR(episode_frames=25), "ale") for name in ("asterix", "seaquest", "freeway")},
    "minatar_breakout": ("minatar_breakout", MINATAR(sticky=0.5, noop_max=3), "ale"),
    "minatar_space_invaders": ("minatar_space_invaders", MINATAR(full_actions=True, episode_frames=40), "ale"),
    "fake": ("fake", PLAIN(), "ale"),
    "fake_truncated": ("fake", PLAIN(episode_frames=5), "ale"),
    **{name: (name, PLAIN(), "ale") for name in PROBES},
}


def _param(name: str):
    return pytest.param(CASES[name], marks=[ENVPOOL] if name.startswith("envpool") else [], id=name)


@pytest.fixture(params=[_param(name) for name in CASES])
def case(request):
    return request.param


def build(case, envs: int = ENVS, **options):
    game, protocol, backend = case
    return make(game, envs, protocol, backend=backend, **options)


def actions_for(env, steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(env.spec.actions, size=(steps, env.envs), dtype=np.int32)


def play(env, seeds, actions) -> list[Row]:
    rows = [env.restart(seeds)]
    for a in actions:
        env.send(a)
        rows.append(env.recv())
    return rows


def assert_same(left: list[Row], right: list[Row], envs=slice(None), other=slice(None)) -> None:
    for t, (a, b) in enumerate(zip(left, right, strict=True)):
        for name, x, y in zip(Row._fields, a, b, strict=True):
            np.testing.assert_array_equal(x[envs], y[other], err_msg=f"{name} at row {t}")


def test_shapes_and_dtypes_are_those_of_the_spec(case):
    env = build(case)
    for row in play(env, range(ENVS), actions_for(env, 3)):
        assert row.frame.shape == (ENVS, *env.spec.shape)
        assert row.frame.dtype == env.spec.dtype
        assert [x.dtype for x in row[1:]] == [np.float32, bool, bool, np.int32, bool]
        assert all(x.shape == (ENVS,) for x in row[1:])


def test_an_episode_begins_after_each_that_ended_and_nowhere_else(case):
    env = build(case)
    rows = play(env, range(ENVS), actions_for(env, STEPS))
    first, ended = np.stack([r.first for r in rows]), np.stack([r.over | r.truncated for r in rows])
    assert first[0].all()
    assert ended.any(), "the case is meant to end episodes"
    np.testing.assert_array_equal(first[1:], ended[:-1])
    assert not (first & ended).any()
    assert all(not r.reward[r.first].any() for r in rows)
    assert not any((r.over & r.truncated).any() for r in rows)


def test_the_action_before_a_reset_row_is_ignored(case):
    env = build(case)
    actions = actions_for(env, STEPS)
    rows = play(env, range(ENVS), actions)
    resets = np.stack([r.first for r in rows[1:]])
    # Not even its range matters: what an agent says about an episode that is over need not be an action.
    assert_same(rows, play(env, range(ENVS), np.where(resets, 99, actions)))


def test_what_follows_a_restart_depends_on_seeds_and_actions_only(case):
    one, other = build(case), build(case, threads=1)
    actions = actions_for(one, STEPS)
    rows = play(one, [0, 6, 2**31 - 1], actions)
    play(other, [1, 2, 3], actions_for(other, 17, seed=1))
    other.send(actions[0])  # a restart drops a row that was sent for
    assert_same(rows, play(other, [0, 6, 2**31 - 1], actions))
    assert_same(rows, play(one, [0, 6, 2**31 - 1], actions))


def test_an_environment_does_not_depend_on_its_neighbours(case):
    env = build(case)
    actions = actions_for(env, STEPS)
    left = play(env, [0, 6, 2**31 - 1], actions)
    right = play(env, [6, 0, 8], actions[:, [1, 0, 2]])
    assert_same(left, right, envs=1, other=0)


def test_rows_belong_to_the_receiver(case):
    env = build(case)
    actions = actions_for(env, STEPS)
    rows, copies = [], []
    for row in play(env, range(ENVS), []):
        rows.append(row)
    for a in actions:
        sent = a.copy()
        env.send(sent)
        sent[:] = 0  # and the actions belong to the caller
        rows.append(env.recv())
        copies.append(Row(*(x.copy() for x in rows[-1])))
        assert all(x.flags.writeable for x in rows[-1])
    assert_same(rows[1:], copies)
    assert_same(rows, play(env, range(ENVS), actions))


def test_calls_out_of_order_are_errors_and_not_hangs(case):
    env = build(case)
    zeros = np.zeros(ENVS, np.int32)
    with pytest.raises(RuntimeError, match="before the first restart"):
        env.send(zeros)
    with pytest.raises(RuntimeError, match="recv without send"):
        env.recv()
    env.restart(range(ENVS))
    with pytest.raises(RuntimeError, match="recv without send"):
        env.recv()
    env.send(zeros)
    with pytest.raises(RuntimeError, match="send twice"):
        env.send(zeros)
    env.close()  # also with a row on its way
    env.close()
    for call in (lambda: env.restart(range(ENVS)), lambda: env.send(zeros), env.recv):
        with pytest.raises(RuntimeError, match="closed"):
            call()


def test_bad_actions_and_seeds_are_errors_and_not_crashes(case):
    env = build(case)
    env.restart(range(ENVS))
    for bad in (env.spec.actions, -1):
        with pytest.raises(ValueError, match=r"actions must be in \[0"):
            env.send(np.array([0, bad, 0], np.int32))
    for bad in (np.zeros(ENVS + 1, np.int32), np.zeros((ENVS, 1), np.int32), np.zeros(ENVS, np.float32)):
        with pytest.raises(ValueError, match="actions must be integers"):
            env.send(bad)
    with pytest.raises(ValueError, match="one seed for each of 3"):
        env.restart([1, 2])
    for bad in (-1, 2**31):
        with pytest.raises(UserError, match="seeds must be in"):
            env.restart([0, 0, bad])
    env.send(np.zeros(ENVS, np.int64))  # what a refused call leaves behind is an environment that goes on
    assert env.recv().reward.shape == (ENVS,)


def test_random_games_differ_between_seeds():
    for name in ("sticky", "noops", "asterix", "minatar_breakout", "probe_observation"):
        env = build(CASES[name])
        actions = np.repeat(actions_for(env, STEPS)[:, :1], ENVS, 1)
        frames = np.stack([r.frame for r in play(env, [1, 2, 30], actions)])
        assert any((frames[:, 0] != frames[:, i]).any() for i in (1, 2)), name


def test_send_returns_before_the_emulation_is_done():
    env = make("pong", 8, MACHADO(), threads=1)
    env.restart(range(8))
    sending, both = [], []
    for _ in range(5):
        start = time.perf_counter()
        env.send(np.zeros(8, np.int32))
        sending.append(time.perf_counter() - start)
        env.recv()
        both.append(time.perf_counter() - start)
    assert min(sending) < min(both) / 2
