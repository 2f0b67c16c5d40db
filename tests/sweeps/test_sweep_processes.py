"""Real processes and real signals: kill -9, Ctrl-C, workers that die, and a parent that dies."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tiny_study import close_rows, laid_out, options, request, rows, same_rows, spawn, statuses, task, tiny

from plasticity import checkpoint
from plasticity.folder import Stopped
from plasticity.record import read_runs
from sweeps.__main__ import main
from sweeps.command import execute
from sweeps.executors import processes as module
from sweeps.executors.processes import processes

#: Long enough to be hit in the middle: each of its saves flushes files to disk.
LONG = tiny(tasks=(task(num_tasks=150),), seeds=4)
PATIENCE = 120  # seconds, for a machine that is busy with other things
GRID = (
    "grid",
    "--name",
    "mine",
    "--task",
    task(num_tasks=60),
    "--mitigations",
    "none",
    "l2(1e-3)",
    "--seeds",
    "2",
    "--no-fresh",
)
OPTIONS = ("--network", "mlp(8, 1)", "--save-seconds", "0")


def wait_for(condition, process=None):
    """Poll until `condition()` holds; fail when the process has ended before or after `PATIENCE` seconds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        assert process is None or process.poll() is None, f"ended too early: {process.communicate()[0]}"
        time.sleep(0.005)


def saves(folder) -> int:
    """Number of saves of the study's furthest group."""
    newest = [checkpoint.latest(path) for path in folder.glob("groups/*/checkpoints")]
    return max((int(path.stem) for path in newest if path is not None), default=0)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """What the command line computes if it is left alone, with the diagnostics that it measures by default."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "study"
    assert main([*GRID, *OPTIONS, "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_killed_or_stopped_and_run_again(tmp_path, uninterrupted, sent):
    """The same command again gives the same rows and statuses, whatever hit it; after Ctrl-C nothing is lost at all."""
    folder = tmp_path / "study"
    command = [*GRID, *OPTIONS, "--out", str(folder)]
    with spawn(*command, cwd=tmp_path) as process:
        try:
            wait_for(lambda: saves(folder) >= 3, process)
            process.send_signal(sent)
            output, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert "Traceback" not in output
    assert process.returncode == (-signal.SIGKILL if sent == signal.SIGKILL else 130)
    assert {status for status, _ in statuses(folder).values()} == {"running"}
    reached = saves(folder)
    assert 3 <= reached < 59
    if sent != signal.SIGKILL:
        assert "stopped; the same command goes on from here" in output
        assert len(list(folder.glob("groups/*/metrics/part-*.parquet"))) == reached
    assert main(["status", str(folder)]) == 0
    assert main(command) == 0
    same_rows(folder, uninterrupted)
    assert statuses(folder) == statuses(uninterrupted)


def test_a_dead_worker_fails_its_group_only(tmp_path, monkeypatch, capsys):
    """Killed in its second group, as the kernel does where memory ends. Another worker goes on with the third; a retry
    completes what is missing, with the rows of inline."""
    inline_folder, folder = tmp_path / "inline", tmp_path / "study"
    grid = tiny(tasks=(task(num_tasks=150),), seeds=6)
    assert execute(request(grid, inline_folder, lanes=4)) == 0
    given, workers = [], []
    original = module._give

    def give(worker, waiting):
        path = next(iter(waiting), None)
        original(worker, waiting)
        given.append(path)
        workers.append(worker.process.pid)
        if len(given) == 2:

            def kill():
                wait_for(lambda: checkpoint.latest(path / "checkpoints") is not None, worker.process)
                worker.process.kill()

            threading.Thread(target=kill, daemon=True).start()

    monkeypatch.setattr(module, "_give", give)
    command = request(grid, folder, lanes=4, executor="processes", workers=1, save_seconds=0.1)
    assert execute(command) == 1
    first, second, third, *_ = workers
    assert first == second != third
    dead = {line.run_id for line in read_runs(given[1])}
    found = statuses(folder)
    assert len(dead) == 4
    assert {found[i][0] for i in found if i not in dead} == {"done"}
    assert {found[i] for i in dead} == {("failed", "process ended by signal SIGKILL")}
    assert "4 failed: process ended by signal SIGKILL" in capsys.readouterr().out
    assert main(["retry", str(folder), "--executor", "processes", "--workers", "1"]) == 0
    assert statuses(folder) == statuses(inline_folder)
    close_rows(rows(folder), rows(inline_folder))


def test_stopped_workers_save(tmp_path):
    folder = tmp_path / "study"
    groups = laid_out(folder, LONG, lanes=4)
    path = groups[0][0]
    with pytest.raises(Stopped):
        processes([p for p, _ in groups], options(stop=lambda: saves(folder) >= 2), workers=1)
    # The first has saved, the second has not begun.
    assert [{line.status for line in read_runs(p)} for p, _ in groups] == [{"running"}, {"planned"}]
    assert saves(folder) >= 2
    assert "stopping after this chunk" in (path / "log.txt").read_text()


#: Workers that only act their part, so that it does not depend on how fast the machine is.
SLOW_TO_SAVE = """
import signal, sys, time
signals = []
signal.signal(signal.SIGINT, lambda *_: signals.append(1))
print("progress 1", flush=True)
while not signals:
    time.sleep(0.01)
time.sleep(1.5)  # three polls of the executor
sys.exit(130 if len(signals) == 1 else 7)
"""
STARTING_UP = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_DFL)
print("progress 1", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("script", [SLOW_TO_SAVE, STARTING_UP])
def test_a_stop_waits_for_workers_and_blames_none(tmp_path, monkeypatch, script):
    """One that takes long to save is signalled once; one that dies of the signal, still importing, has not failed."""
    [(path, _)] = laid_out(tmp_path / "study", tiny())
    started = []

    def start(*_):
        command = [sys.executable, "-S", "-c", script]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, **pipes, start_new_session=True))
        return started[-1]

    monkeypatch.setattr(module, "_start", start)
    told = []
    with pytest.raises(Stopped):
        processes([path], options(stop=lambda: bool(told), progress=told.append), workers=1)
    assert [process.returncode for process in started] == [130 if script is SLOW_TO_SAVE else -signal.SIGINT]
    assert {line.status for line in read_runs(path)} == {"planned"}


def test_an_error_in_the_parent_leaves_no_worker_behind(tmp_path, monkeypatch):
    [(path, _)] = laid_out(tmp_path / "study", tiny())
    started = []
    original = module._start
    monkeypatch.setattr(module, "_start", lambda *a: (started.append(original(*a)), started[-1])[1])

    def stop():
        if started:
            raise KeyboardInterrupt  # the second Ctrl-C
        return False

    with pytest.raises(KeyboardInterrupt):
        processes([path], options(stop=stop), workers=1)
    assert started[0].wait(timeout=PATIENCE) == -signal.SIGKILL


def test_a_killed_parent_leaves_no_worker_behind(tmp_path):
    """Its worker saves the group at hand, does not begin the next, and ends."""
    folder = tmp_path / "study"
    sweep = ("--seeds", "4", "--lanes", "2", "--executor", "processes", "--workers", "1")
    with spawn(*GRID, *OPTIONS, *sweep, "--out", str(folder), cwd=tmp_path) as process:
        wait_for(lambda: saves(folder) >= 1, process)
        [worker] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
    ended = Path("/proc", worker, "stat")
    # Where nobody collects orphans, its line stays and says so.
    wait_for(lambda: not ended.exists() or ended.read_text().rpartition(")")[2].split()[0] == "Z")
    states = [{line.status for line in read_runs(path)} for path in folder.glob("groups/*")]
    assert sorted(states, key=str) == [{"planned"}] * 3 + [{"running"}]
    assert not list(folder.glob("groups/*/error.txt"))
    assert len(list(folder.glob("groups/*/metrics/part-*.parquet"))) == saves(folder) >= 1


def test_a_worker_whose_parent_is_gone_saves_and_stops(tmp_path):
    """Nobody reads its progress any more. Its runs must not be marked failed: the same command goes on from there."""
    folder = tmp_path / "study"
    path = laid_out(folder, LONG, lanes=4)[0][0]
    with spawn("work", str(path), "--save-seconds", "0", cwd=tmp_path) as process:
        assert process.stdout is not None
        wait_for(lambda: saves(folder) >= 1, process)
        process.stdout.close()
        try:
            assert process.wait(timeout=PATIENCE) == 130
        finally:
            process.kill()
    assert {line.status for line in read_runs(path)} == {"running"}
    assert not (path / "error.txt").exists()
    reached = saves(folder)
    assert 1 <= reached < 149
    assert len(list((path / "metrics").iterdir())) == reached
