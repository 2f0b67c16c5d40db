"""The process executor: `workers` Python processes, one core each, each given group after group (see `sweeps.worker`).

Small networks are bound by overhead that XLA keeps on one core, so one process a core is what uses a CPU fully. A
process that dies (out of memory, kill -9) takes only the group that it was computing with it, whose runs are marked
failed; another goes on with the next. The processes share the persistent compilation cache.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from plasticity.errors import UserError
from plasticity.folder import Options, Stopped
from plasticity.record import FINISHED, read_runs, write_runs
from sweeps import store
from sweeps.worker import LOG, STOPPED


@dataclass
class _Worker:
    """folder: of the group it computes, None if it waits for one."""

    process: subprocess.Popen[str]
    folder: Path | None = None

    def end(self) -> None:
        """Tell it that nothing more will come."""
        if self.process.stdin is not None:
            self.process.stdin.close()


def processes(folders: Sequence[Path], options: Options, workers: int) -> bool:
    """Compute the groups with `workers` processes. Forwards a stop to all of them and waits for their saves."""
    waiting, ok, stopping = list(folders), True, False
    running: dict[int, _Worker] = {}
    #: What each slot's worker says, None once it has ended.
    said: queue.SimpleQueue[tuple[int, str | None]] = queue.SimpleQueue()

    def listen(slot: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                said.put((slot, line))
        process.wait()
        said.put((slot, None))

    try:
        while waiting or running:
            if not stopping and options.stop():
                stopping = True
                # Once: a second signal tells a worker to stop without saving. Idle ones end as their stdin does.
                for worker in running.values():
                    if worker.folder:
                        worker.process.send_signal(signal.SIGINT)
            if stopping:
                waiting.clear()
            for slot in range(workers):
                if waiting and slot not in running:
                    running[slot] = _Worker(_start(waiting[0], slot, options))
                    threading.Thread(target=listen, args=(slot, running[slot].process), daemon=True).start()
                if slot in running and not running[slot].folder:
                    _give(running[slot], waiting)
            try:
                # The timeout is for noticing a stop.
                slot, line = said.get(timeout=0.5)
            except queue.Empty:
                continue
            worker = running[slot]
            word, _, number = (line or "").partition(" ")
            if word == "progress":
                options.progress(int(number))
            elif word == "done":
                worker.folder = None
                ok = ok and int(number) == 0
            elif line is None:
                worker.end()
                del running[slot]
                if worker.process.returncode == STOPPED:
                    stopping = True
                elif worker.folder and not stopping:
                    # While stopping, one that was still starting up dies of the signal: it has lost nothing.
                    ok = False
                    _mark_dead(worker.folder, worker.process.returncode)
    finally:
        # Left by an exception (a second Ctrl-C, a full disk): nobody would watch them any more.
        for worker in running.values():
            worker.process.kill()
            worker.end()
    if stopping:
        raise Stopped
    return ok


def _start(folder: Path, slot: int, options: Options) -> subprocess.Popen[str]:
    """A worker. What it prints before it takes its first group goes to that group's log."""
    command = [sys.executable, "-m", "sweeps", "work", "--save-seconds", str(options.save_seconds)]
    command += ["--chunk-updates", str(options.chunk_updates), "--core", str(slot)]
    clone = Path(__file__).resolve().parents[2]
    path = os.pathsep.join([str(clone), *filter(None, [os.environ.get("PYTHONPATH")])])
    with _new_log(folder) as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            # A Ctrl-C in the terminal reaches only the parent, which passes it on once.
            start_new_session=True,
        )


def _give(worker: _Worker, waiting: list[Path]) -> None:
    """Give an idle worker the next group, or, if there is none, leave to end."""
    if not waiting:
        worker.end()
        return
    assert worker.process.stdin is not None
    _new_log(waiting[0]).close()
    # One that has just died cannot be written to. Its end is told next, and the group is for another.
    with contextlib.suppress(BrokenPipeError):
        os.write(worker.process.stdin.fileno(), (json.dumps(str(waiting[0])) + "\n").encode())
        worker.folder = waiting.pop(0)


def _new_log(folder: Path) -> IO[str]:
    try:
        return open(folder / LOG, "w")
    except OSError as error:
        raise UserError(f"cannot write {folder / LOG}: {error.strerror}") from error


def _mark_dead(folder: Path, code: int) -> None:
    """Mark the runs of a group whose process died without saying why; what it said itself stands."""
    group = store.load_group(folder)
    known = read_runs(folder)
    if any(line.status in ("failed", *FINISHED) for line in known):
        return
    cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    log = (folder / LOG).read_text().strip().splitlines()
    error = f"process ended by {cause}" + (f": {log[-1]}" if log else "")
    write_runs(folder, store.lines_of(group, "failed", error))
