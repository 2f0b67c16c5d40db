"""From raw rows to what is learned from, by hand: clipping, lives under each protocol, ends and beginnings."""

import jax.numpy as jnp
import numpy as np
import pytest

from rl.envs.base import Row
from rl.protocols import protocols
from rl.signals import stored

MEMBERS = protocols.members()


def row(**fields):
    """A row of one environment in the middle of an episode with three lives."""
    given = {"frame": 7, "reward": 0.0, "over": False, "truncated": False, "lives": 3, "first": False, **fields}
    kinds = {"frame": np.uint8, "reward": np.float32, "lives": np.int32}
    return Row(**{name: jnp.array([value], kinds.get(name, bool)) for name, value in given.items()})


def flags(protocol, lives_before, **fields):
    """(term, stop, first, fresh) as the replay keeps them."""
    kept = stored(protocol, jnp.array([lives_before], jnp.int32), row(**fields))
    return tuple(bool(getattr(kept, name)[0]) for name in ("term", "stop", "first", "fresh"))


@pytest.mark.parametrize(
    ("raw", "clipped"), [(0, 0), (1, 1), (7, 1), (-400, -1), (0.25, 0.25), (-0.5, -0.5), (np.inf, 1)]
)
def test_rewards_are_clipped_where_the_protocol_says(raw, clipped):
    before = jnp.array([3], jnp.int32)
    assert stored(MEMBERS["nature"](), before, row(reward=raw)).reward[0] == clipped
    assert stored(MEMBERS["nature"](clip_reward=False), before, row(reward=raw)).reward[0] == raw


@pytest.mark.parametrize(
    ("life_loss", "expected"),
    [
        ("off", (False, False, False, False)),
        ("discount", (True, False, False, False)),
        ("episode", (True, False, False, True)),
    ],
)
def test_a_lost_life_means_what_the_protocol_says(life_loss, expected):
    protocol = MEMBERS["plain"](life_loss=life_loss)
    assert flags(protocol, 4, lives=3) == expected
    assert flags(protocol, 5, lives=2) == expected  # several at once
    # The game shows no life left some frames before it is over: that is a loss, and the game goes on.
    assert flags(protocol, 1, lives=0) == expected


@pytest.mark.parametrize("life_loss", ["off", "discount", "episode"])
def test_what_is_no_loss_of_a_life_ends_nothing(life_loss):
    protocol = MEMBERS["plain"](life_loss=life_loss)
    nothing = (False, False, False, False)
    assert flags(protocol, 3) == nothing
    assert flags(protocol, 2) == nothing  # a life won
    assert flags(protocol, 0, lives=0) == nothing  # a game without lives; or between the last life and the end
    # A reset row may show fewer lives than the row before: an episode that was truncated with bonus lives.
    assert flags(protocol, 6, lives=3, first=True) == (False, False, True, True)


@pytest.mark.parametrize("life_loss", ["off", "discount", "episode"])
def test_the_end_of_an_episode(life_loss):
    protocol = MEMBERS["plain"](life_loss=life_loss)
    counted = life_loss == "episode"
    assert flags(protocol, 0, lives=0, over=True) == (True, True, False, False)
    assert flags(protocol, 1, lives=0, over=True) == (True, True, False, counted)
    assert flags(protocol, 3, truncated=True) == (False, True, False, False)
    # Truncated on the step that costs a life: no bootstrap where lives count.
    assert flags(protocol, 4, truncated=True) == (life_loss != "off", True, False, counted)


def test_environments_are_told_apart():
    protocol = MEMBERS["atari100k"]()
    before = jnp.array([3, 3, 3], jnp.int32)
    many = Row(
        frame=jnp.arange(3, dtype=jnp.uint8),
        reward=jnp.array([5.0, -5.0, 0.5]),
        over=jnp.array([False, True, False]),
        truncated=jnp.array([False, False, True]),
        lives=jnp.array([2, 3, 3], jnp.int32),
        first=jnp.array([False, False, False]),
    )
    kept = stored(protocol, before, many)
    np.testing.assert_array_equal(kept.term, [True, True, False])
    np.testing.assert_array_equal(kept.stop, [False, True, True])
    np.testing.assert_array_equal(kept.fresh, [True, False, False])
    np.testing.assert_array_equal(kept.reward, [1.0, -1.0, 0.5])
    np.testing.assert_array_equal(kept.frame, [0, 1, 2])


@pytest.mark.parametrize(
    ("name", "clip", "life_loss", "stack", "sticky", "noop_max", "full", "episode_frames"),
    [
        ("machado", True, "off", 4, 0.25, 0, False, 108_000),
        ("nature", True, "discount", 4, 0.0, 30, False, 108_000),
        ("atari100k", True, "episode", 4, 0.0, 30, False, 108_000),
        ("minatar", False, "off", 1, 0.1, 0, False, 5_000),
        ("plain", False, "off", 1, 0.0, 0, False, 108_000),
    ],
)
def test_the_protocols(name, clip, life_loss, stack, sticky, noop_max, full, episode_frames):
    p = MEMBERS[name]()
    assert (p.clip_reward, p.life_loss, p.stack, p.sticky) == (clip, life_loss, stack, sticky)
    assert (p.noop_max, p.full_actions, p.episode_frames) == (noop_max, full, episode_frames)
