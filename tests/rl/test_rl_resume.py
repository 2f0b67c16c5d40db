"""Killed, stopped and resumed: the same run as the uninterrupted one, and no update too many."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from small_agents import folder_of, policies, rows_of, runs_of, trained

from plasticity.errors import UserError
from plasticity.folder import Options, Stopped
from plasticity.record import read_runs
from rl.envs.stepped import SteppedEnv
from rl.lanes import Lanes
from rl.measure import Measure
from rl.planning import plan_of
from rl.program import programs
from rl.replay import capacity
from rl.train import train

ROOT = Path(__file__).parents[2]
AGENT = (
    "dopamine_rainbow(replay_steps=300, min_replay_steps=40, batch_size=4, atoms=5, target_updates=7, n_step=2, "
    "replay_ratio=0.375)"
)
SCHEDULE = {"frames": 720, "iteration_frames": 120, "envs": 2, "checkpoint_iterations": 2}
OFTEN = Measure(every_updates=16, reference=4, ranks=False)


def group(**changed):
    """Two lanes on a probe whose episodes are truncated; 6 iterations of 60 cycles, a checkpoint every second."""
    return runs_of(
        "probe_truncation", AGENT, "redo(every=9)+shrink_perturb", (0, 1), OFTEN, "mlp(8, 2)",
        optimizer="adam(1e-3)", event_updates=50, **{**SCHEDULE, **changed},
    )  # fmt: skip


class Killed(Exception):
    """What stands for a machine that dies."""


def kill_after(frames):
    """An option `progress` that raises once so many frames have been played."""
    done = 0

    def progress(amount):
        nonlocal done
        done += amount
        if done >= frames:
            raise Killed

    return progress


def same(first, second, runs, other=None):
    """Equal rows and equal last and best policies."""
    pd.testing.assert_frame_equal(rows_of(first), rows_of(second))
    for which in ("last", "best"):
        a, b = policies(first, runs, which), policies(second, other or runs, which)
        jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole")
    trained(path, group())
    return path


# All lanes' frames: checkpoints lie at 480 and 960 of 1,440.
@pytest.mark.parametrize("deaths", [(700,), (100,), (481, 500, 1400)])
def test_a_killed_and_resumed_run_is_the_uninterrupted_one(deaths, uninterrupted, tmp_path):
    for frames in deaths:
        with pytest.raises(Killed):
            trained(tmp_path, group(), Options(progress=kill_after(frames), save_seconds=0.0))
        assert {line.status for line in read_runs(tmp_path)} == {"running"}
    trained(tmp_path, group())
    same(uninterrupted, tmp_path, group())


def test_a_resumed_run_compiles_nothing_anew(tmp_path):
    with pytest.raises(Killed):
        trained(tmp_path, group(), Options(progress=kill_after(700)))
    made = programs(plan_of(group()[0], 2)[0], OFTEN)
    before = [made.act._cache_size(), made.learn._cache_size(), made.event._cache_size(), made.measure._cache_size()]
    trained(tmp_path, group())
    after = [made.act._cache_size(), made.learn._cache_size(), made.event._cache_size(), made.measure._cache_size()]
    assert after == before


def test_progress_of_a_resumed_run_begins_where_it_was(tmp_path):
    with pytest.raises(Killed):
        trained(tmp_path, group(), Options(progress=kill_after(700)))
    amounts = []
    trained(tmp_path, group(), Options(progress=amounts.append))
    assert amounts[0] == 480
    assert sum(amounts) == 1440


def test_frames_on_the_host_are_saved_too(uninterrupted, tmp_path, monkeypatch):
    original = capacity.choose

    def on_host(*given, **choices):
        return original(*given, **choices)._replace(on_device=False)

    monkeypatch.setattr(capacity, "choose", on_host)
    with pytest.raises(Killed):
        trained(tmp_path, group(), Options(progress=kill_after(700)))
    rows = trained(tmp_path, group())
    expected = rows_of(uninterrupted)
    assert rows[["run_id", "step", "name"]].equals(expected[["run_id", "step", "name"]])
    score = rows.name == "episode_length"
    np.testing.assert_array_equal(rows[score].value, expected[score].value)


SCRIPT = """
import sys, time
sys.path[:0] = {paths}
from pathlib import Path
from test_rl_resume import group
from small_agents import trained
from plasticity.folder import Options
done = 0
def progress(amount):
    global done
    done += amount
    if done == 700:
        Path({path}, "here").touch()
        time.sleep(100)
trained(Path({path}), group(), Options(progress=progress))
"""


def test_a_killed_process_is_resumed_by_another(uninterrupted, tmp_path):
    paths = [str(ROOT), str(Path(__file__).parent)]
    script = SCRIPT.format(paths=paths, path=repr(str(tmp_path)))
    cache = {"JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir or tmp_path / "xla")}
    process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, **cache})
    try:
        end = time.monotonic() + 300
        while not (tmp_path / "here").exists():
            assert process.poll() is None, "the process ended by itself"
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    trained(tmp_path, group())
    same(uninterrupted, tmp_path, group())


def stop_in(cycle):
    """Options of a user who asks to stop in a cycle of the run; every cycle is looked at."""
    seen = 0

    def progress(amount):
        nonlocal seen
        seen += 1

    return Options(progress=progress, stop=lambda: seen >= cycle)


@pytest.fixture
def learned(monkeypatch):
    """(first, updates, rows in the replay) of every call to learn; no pause between looks at `stop`."""
    seconds = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(seconds)))
    calls = []
    original = Lanes.learn

    def watched(lanes, first, updates, *rest):
        calls.append((first, updates, lanes.count))
        return original(lanes, first, updates, *rest)

    monkeypatch.setattr(Lanes, "learn", watched)
    return calls


@pytest.mark.parametrize("saved", [True, False])
@pytest.mark.parametrize("cycle", [75, 130, 120])
def test_a_stopped_run_goes_on_with_the_right_number_of_updates(cycle, saved, learned, tmp_path):
    with pytest.raises(Stopped):
        trained(tmp_path, group(), stop_in(cycle), save_replay=saved)
    before = sum(updates for _, updates, _ in learned)
    # The replay holds 40 rows at the 20th cycle; from there on three quarters of an update a cycle.
    assert before == (cycle - 19) * 3 // 4
    assert policies(tmp_path, group()) is not None
    rows = trained(tmp_path, group(), save_replay=saved)
    total = sum(updates for _, updates, _ in learned)
    # Without its replay the agent waits until it is filled again; the updates that it misses are not made up for.
    assert total == (360 - 19 * (1 if saved else 2)) * 3 // 4
    assert max(updates for _, updates, _ in learned) == 1
    numbers = [first for first, _, _ in learned]
    assert numbers == list(range(total))
    assert all(2 * count >= 40 for _, _, count in learned)
    assert rows[rows.name == "end_score"].task.value_counts().to_dict() == dict.fromkeys(range(6), 2)
    assert {line.status for line in read_runs(tmp_path)} == {"done"}
    assert rows.step.max() == total


def test_episodes_that_ended_before_a_stop_count_once(learned, tmp_path):
    """Episodes of 3 steps and a reset row: 75 is 15 cycles into the second iteration."""
    with pytest.raises(Stopped):
        trained(tmp_path, group(), stop_in(75))
    (path,) = (tmp_path / "checkpoints").glob("*.npz")
    with np.load(path) as file:
        host = json.loads(str(file["host"]))
    assert (host["iteration"], host["cycle"], host["restarts"]) == (1, 15, 1)
    # Fresh at 0 and no restart at 60: rows 60 to 75 hold the last frames of 61 // 4 ... (75 + 1) // 4 episodes.
    assert [len(r) for r in host["returns"]] == [2 * ((75 + 1) // 4 - 60 // 4)] * 2
    assert set(host["lengths"][0]) == {3}
    rows = trained(tmp_path, group())
    counts = rows[(rows.name == "episodes") & (rows.task == 1)].value.tolist()
    # 8 before; 45 cycles of fresh episodes give 11 for each environment.
    assert counts == [8 + 2 * (45 // 4)] * 2


def test_the_choice_about_the_replay_holds_for_the_whole_run(learned, tmp_path):
    with pytest.raises(Stopped):
        trained(tmp_path, group(), stop_in(75), save_replay=True)
    with pytest.raises(UserError, match="another choice about saving the replay"):
        trained(tmp_path, group(), save_replay=False)


def test_a_group_that_is_stopped_twice_is_done_in_the_end(learned, tmp_path):
    for cycle in (50, 40, 40):
        with pytest.raises(Stopped):
            train(folder_of(tmp_path, group()), group(), [r.method for r in group()], stop_in(cycle))
    trained(tmp_path, group())
    assert sum(updates for _, updates, _ in learned) == (360 - 19) * 3 // 4


def test_episodes_after_a_stop_are_new_ones(learned, tmp_path, monkeypatch):
    """Every environment of every lane gets a seed of its own at each restart."""
    seeds = []
    original = SteppedEnv._restart

    def watched(env, given):
        seeds.append(given)
        return original(env, given)

    monkeypatch.setattr(SteppedEnv, "_restart", watched)
    with pytest.raises(Stopped):
        trained(tmp_path, group(), stop_in(30))
    trained(tmp_path, group())
    assert len(seeds) == 4  # at the start, after the stop, at two checkpoints
    assert len({seed for each in seeds for seed in each}) == 4 * 4
