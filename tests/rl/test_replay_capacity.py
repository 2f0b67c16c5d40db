"""Capacity: bytes counted without allocating, and the choice between device, host and an error."""

import jax
import pytest

from plasticity.errors import UserError
from rl.replay import capacity, ring
from rl.replay.capacity import Memory
from rl.replay.ring import Layout

ATARI = Layout(100, 8, (84, 84, 1), stack=4, n_step=3)
GB = 10**9


@pytest.mark.parametrize("prioritized", [False, True])
def test_bytes_are_those_of_the_arrays(prioritized):
    layout = Layout(50, 3, (5, 4, 2), block=7)
    arrays = jax.tree.leaves(ring.init(layout, True, prioritized))
    assert capacity.ring_bytes(layout, 2, prioritized) == 2 * sum(x.nbytes for x in arrays)


def test_a_million_atari_frames_take_seven_gigabytes():
    chosen = capacity.choose(ATARI, batch=32, memory=Memory(70 * GB, 100 * GB))
    assert (chosen.slots, chosen.on_device) == (125_000, True)
    assert 7.05 * GB < chosen.bytes < 7.08 * GB
    assert "1,000,000 transitions on the device" in chosen.words


def test_the_default_shrinks_to_the_device_and_what_is_asked_moves_to_the_host():
    small = Memory(5 * GB, 100 * GB)
    chosen = capacity.choose(ATARI, batch=32, memory=small)
    assert chosen.on_device
    assert 3.9 * GB < chosen.bytes <= 4 * GB
    assert "1,000,000 would take 7.07 GB" in chosen.words
    asked = capacity.choose(ATARI, 1_000_000, batch=32, prioritized=True, memory=small)
    assert (asked.slots, asked.on_device) == (125_000, False)
    assert "frames in host memory" in asked.words


@pytest.mark.parametrize("memory", [Memory(5 * GB, 6 * GB), Memory(None, 6 * GB)])
def test_what_fits_nowhere_is_an_error_that_says_what_fits(memory):
    with pytest.raises(
        UserError, match=r"1,000,000 transitions take 7\.07 GB.*allowed here: ([\d,]+) or fewer"
    ) as error:
        capacity.choose(ATARI, 1_000_000, batch=32, memory=memory)
    allowed = int(str(error.value).split("allowed here: ")[1].split(" ")[0].replace(",", ""))
    assert capacity.choose(ATARI, allowed, batch=32, memory=memory).slots * 8 == allowed
    with pytest.raises(UserError):
        capacity.choose(ATARI, allowed + 8, batch=32, memory=memory)


def test_lanes_share_the_memory():
    one = capacity.choose(ATARI, 100_000, batch=32, memory=Memory(None, 100 * GB))
    assert capacity.choose(ATARI, 100_000, batch=32, lanes=3, memory=Memory(None, 100 * GB)).bytes == 3 * one.bytes


def test_less_than_a_batch_and_one_row_need_is_an_error():
    memory = Memory(None, 10 * GB)
    with pytest.raises(UserError, match=r"capacity of 79 .*batches of 32 .*n_step 3 and stack 4; allowed: 80 or more"):
        capacity.choose(ATARI, 79, batch=32, memory=memory)
    assert capacity.choose(ATARI, 80, batch=32, memory=memory).slots == 10
    with pytest.raises(UserError, match="allowed: 56 or more"):
        capacity.choose(ATARI, 55, batch=1, memory=memory)


def test_free_memory_of_this_machine():
    memory = capacity.free_memory()
    assert memory.host > 2**26
    assert memory.device is None or memory.device > 0
