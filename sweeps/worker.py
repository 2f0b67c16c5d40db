"""A worker: one process that computes group folders, one after the other; what executors start.

A process costs some seconds of imports and of starting the backend, so it is kept for many groups; compiled programs
are kept from one group to the next if that has the same. Folders come on stdin, each a line with its path as a JSON
string; answers go to stdout, a line each:

    progress N      so much more work of the group at hand (updates or frames over all runs)
    done CODE       the group has ended: 0 finished, 1 failed and marked so, with the error; the next may come

Anything worse ends the process: its exit code and the last line of the log say why. Whatever a group prints, XLA's own
messages too, goes to `log.txt` in its folder. The end of stdin ends the worker after its group; where nobody reads the
answers any more (the process that asked for the work was killed), it saves and stops, as it does on SIGINT or SIGTERM.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import jax
from rich.console import Console

from plasticity import cli
from plasticity.errors import UserError
from plasticity.folder import Options, Stopped
from plasticity.progress import stop_flag
from plasticity.provenance import reset_peak_memory
from sweeps import kinds, store

#: Exit code of a worker that was stopped after saving (as a shell reports SIGINT).
STOPPED = 130
LOG = "log.txt"


def work_on(folder: Path, save_seconds: float, chunk_updates: int) -> int:
    """Compute one group folder; progress on stdout, everything else on stderr. 0, 1 if it failed, 130 if stopped."""
    cli.use_compilation_cache()
    with stop_flag(Console(stderr=True)) as stopped:
        return _Answers(sys.stdout).compute(folder, save_seconds, chunk_updates, stopped)


def serve(save_seconds: float, chunk_updates: int) -> int:
    """Compute the folders that stdin names until it ends; 0, or 130 if stopped after saving."""
    cli.use_compilation_cache()
    # Copies that nothing else has: no library that prints, and no child process, can disturb what is said here.
    with os.fdopen(os.dup(0)) as asked, os.fdopen(os.dup(1), "w") as out, stop_flag(Console(stderr=True)) as stopped:
        answers = _Answers(out)
        _redirect(0, os.devnull, os.O_RDONLY)
        program: Any = None
        while not answers.gone and (line := asked.readline()):
            if stopped():
                return STOPPED
            folder = Path(json.loads(line))
            _log_to(folder / LOG)
            following = store.load_group(folder).program
            if following != program:
                # Each holds memory, and mappings of it, of which Linux allows a process 65,530.
                jax.clear_caches()
            program = following
            reset_peak_memory()
            code = answers.compute(folder, save_seconds, chunk_updates, stopped)
            if code == STOPPED:
                return STOPPED
            answers.say(f"done {code}")
    return 0


class _Answers:
    """What a worker says. gone: nobody reads it any more."""

    def __init__(self, out: TextIO) -> None:
        self.out, self.gone = out, False

    def say(self, line: str) -> None:
        try:
            print(line, file=self.out, flush=True)
        except BrokenPipeError:
            self.gone = True
            # Whatever is printed from here on, also on leaving, goes nowhere.
            _redirect(self.out.fileno(), os.devnull, os.O_WRONLY)

    def compute(self, folder: Path, save_seconds: float, chunk_updates: int, stopped: Callable[[], bool]) -> int:
        options = Options(
            save_seconds,
            chunk_updates,
            lambda: self.gone or stopped(),
            lambda amount: self.say(f"progress {amount}"),
        )
        try:
            return 0 if kinds.computed(folder, options) else 1
        except Stopped:
            return STOPPED


def _log_to(path: Path) -> None:
    """Send what this process prints, at any level, to the end of a file, until it is sent elsewhere."""
    sys.stdout.flush()
    sys.stderr.flush()
    for descriptor in (1, 2):
        _redirect(descriptor, path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def _redirect(descriptor: int, path: str | Path, flags: int) -> None:
    try:
        opened = os.open(path, flags, 0o666)
    except OSError as error:
        raise UserError(f"cannot open {path}: {error.strerror}") from error
    os.dup2(opened, descriptor)
    os.close(opened)
