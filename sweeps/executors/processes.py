"""The process executor: `workers` groups at a time, each in a Python process of its own, one core each.

Small networks are bound by overhead that XLA keeps on one core, so one process a core is what uses a CPU fully. A
process that dies (out of memory, kill -9) takes only its own group with it, whose runs are marked failed. The
processes share the persistent compilation cache.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from plasticity.errors import UserError
from plasticity.folder import Options, Stopped
from plasticity.record import FINISHED, read_runs, write_runs
from sweeps import store

#: Exit code of a worker that was stopped after saving (as a shell reports SIGINT).
STOPPED = 130


def processes(folders: Sequence[Path], options: Options, workers: int) -> bool:
    """Compute the groups with `workers` processes. Forwards a stop to all of them and waits for their saves."""
    waiting = list(folders)
    running: dict[int, tuple[subprocess.Popen[str], Path]] = {}
    lock, wake = threading.Lock(), threading.Event()

    def follow(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                word, _, number = line.partition(" ")
                if word == "progress":
                    with lock:
                        options.progress(int(number))
        process.wait()
        wake.set()

    ok, stopping = True, False
    try:
        while waiting or running:
            if not stopping and options.stop():
                stopping = True
                # Once: a second signal tells a worker to stop without saving.
                for process, _ in running.values():
                    process.send_signal(signal.SIGINT)
            if stopping:
                waiting.clear()
            for slot in range(workers):
                if waiting and slot not in running:
                    folder = waiting.pop(0)
                    process = _start(folder, slot, options)
                    running[slot] = process, folder
                    threading.Thread(target=follow, args=(process,), daemon=True).start()
            if running:
                # Woken by a process that ends; the timeout is for noticing a stop.
                wake.wait(timeout=0.5)
                wake.clear()
            for slot, (process, folder) in list(running.items()):
                if process.poll() is not None:
                    del running[slot]
                    if process.returncode == STOPPED:
                        stopping = True
                    elif process.returncode != 0 and not stopping:
                        # While stopping, one that was still starting up dies of the signal: it has lost nothing.
                        ok = False
                        _mark_dead(folder, process.returncode)
    finally:
        # Left by an exception (a second Ctrl-C, a full disk): nobody would watch them any more.
        for process, _ in running.values():
            process.kill()
    if stopping:
        raise Stopped
    return ok


def _start(folder: Path, slot: int, options: Options) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sweeps", "work", str(folder), "--save-seconds", str(options.save_seconds)]
    command += ["--chunk-updates", str(options.chunk_updates), "--core", str(slot)]
    clone = Path(__file__).resolve().parents[2]
    path = os.pathsep.join([str(clone), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        log = open(folder / "log.txt", "w")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UserError(f"cannot write {folder / 'log.txt'}: {error.strerror}") from error
    with log:
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            # A Ctrl-C in the terminal reaches only the parent, which passes it on once.
            start_new_session=True,
        )


def _mark_dead(folder: Path, code: int) -> None:
    """Mark the runs of a group whose process died without saying why; what it said itself stands."""
    group = store.load_group(folder)
    known = read_runs(folder)
    if any(line.status in ("failed", *FINISHED) for line in known):
        return
    cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    log = (folder / "log.txt").read_text().strip().splitlines()
    error = f"process ended by {cause}" + (f": {log[-1]}" if log else "")
    write_runs(folder, store.lines_of(group, "failed", error))
