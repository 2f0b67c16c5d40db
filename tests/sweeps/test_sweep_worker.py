"""One process for many groups: what it answers, where its messages go, what it keeps, and what a death costs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tiny_study import close_rows, environment, laid_out, options, request, rows, statuses, task, tiny

from plasticity.record import read_json, read_runs
from sweeps.command import execute
from sweeps.executors import processes as module
from sweeps.executors.processes import processes
from sweeps.grid import Grid
from tasks.data.load import EMBEDDED

SEVERAL = tiny(seeds=6)


@pytest.fixture
def started(monkeypatch):
    """The workers that are started, in a list."""
    found = []
    original = module._start
    monkeypatch.setattr(module, "_start", lambda *a: (found.append(original(*a)), found[-1])[1])
    return found


def test_one_worker_computes_many_groups(tmp_path, started):
    folder = tmp_path / "study"
    paths = [path for path, _ in laid_out(folder, SEVERAL, lanes=4)]
    assert len(paths) == 3
    told = []
    assert processes(paths, options(progress=told.append), workers=1)
    assert [process.returncode for process in started] == [0]
    assert sum(told) == 12 * 3 * 5  # runs, tasks, updates
    assert execute(request(SEVERAL, tmp_path / "inline", lanes=4)) == 0
    assert statuses(folder) == statuses(tmp_path / "inline")
    close_rows(rows(folder), rows(tmp_path / "inline"))


def test_a_group_that_fails_harms_no_other_of_its_worker(tmp_path, started):
    data = tmp_path / "images-idx3-ubyte.gz"
    data.write_bytes(EMBEDDED["fashion_mnist"].read_bytes())
    labels = "labels-idx1-ubyte.gz"
    (tmp_path / labels).write_bytes(EMBEDDED["fashion_mnist"].with_name(f"t10k-{labels}").read_bytes())
    grid = tiny(tasks={"own": task(data=data), "embedded": task()})
    paths = [path for path, _ in laid_out(tmp_path / "study", grid)]
    data.unlink()
    assert not processes(paths, options(), workers=1)
    assert [process.returncode for process in started] == [0]
    assert [{line.status for line in read_runs(path)} for path in paths] == [{"failed"}, {"done"}]
    assert "no data set or file" in str(read_runs(paths[0])[0].error)


@pytest.mark.slow
def test_what_groups_held_is_released(tmp_path):
    """A dozen groups of a dozen programs: what the worker holds at the beginning of each stays the same."""
    networks = [f"mlp({8 + i}, 1)" for i in range(12)]
    paths = [path for path, _ in laid_out(tmp_path / "study", Grid((task(),), ("none",), networks, seeds=1))]
    assert len(paths) == 12
    assert processes(paths, options(), workers=1)
    held = [read_json(path / "provenance.json")["peak_memory_before_mib"] for path in paths]
    assert max(held[6:]) < max(held[:6]) + 30


# A real worker whose groups only act ------------------------------------------------------------------------------

ACTED = """
import os, sys
from types import SimpleNamespace
import jax, numpy
from plasticity.provenance import peak_memory_mib
from sweeps import kinds, store, worker
cleared = []
jax.clear_caches = lambda: cleared.append(1)
store.load_group = lambda path: SimpleNamespace(program=path.name[0])
def computed(path, options):
    print("printed in", path.name)
    os.write(1, b"done 7\\n")
    os.write(2, b"written by C++ in " + path.name.encode())
    block = numpy.ones((200 if path.name == "a1" else 1) * 2**17)
    options.progress(3)
    (path / "told").write_text(f"{len(cleared)} {peak_memory_mib()}")
    assert not sys.stdin.read() and os.path.samestat(os.fstat(0), os.stat(os.devnull))
    return path.name != "a2"
kinds.computed = computed
sys.exit(worker.serve(0.0, 1))
"""


def test_answers_logs_and_memory_group_by_group(tmp_path):
    folders = [tmp_path / name for name in ("a1", "a2", "b")]
    for folder in folders:
        folder.mkdir()
    asked = "".join(json.dumps(str(folder)) + "\n" for folder in folders)
    done = subprocess.run(
        [sys.executable, "-c", ACTED], input=asked, capture_output=True, text=True, env=environment(), check=True
    )
    # Whatever a group prints cannot be taken for an answer, and what it reads is not the next group's name.
    assert done.stdout == "progress 3\ndone 0\nprogress 3\ndone 1\nprogress 3\ndone 0\n"
    for folder in folders:
        log = (folder / "log.txt").read_text()
        assert sorted(log.replace("done 7\n", "").replace("in " + folder.name, "").split()) == [
            *("C++", "by", "printed", "written")
        ]
    told = [(folder / "told").read_text().split() for folder in folders]
    # Programs are kept for a group of the same program only.
    assert [int(cleared) for cleared, _ in told] == [1, 1, 2]
    if sys.platform == "linux":
        first, second, _ = (float(peak) for _, peak in told)
        assert first > second + 150


# Workers that only act --------------------------------------------------------------------------------------------

#: Says its last words over the first group and is well over others.
DIES = """
import sys
word = sys.stdin.readline()
if ORDINAL == 1:
    sys.stderr.write("not this\\nlast words\\n")
    sys.exit(3)
print("progress 1\\ndone 0", flush=True)
sys.exit(0 if not sys.stdin.readline() else 4)
"""
#: Is gone when the second group is to be given.
GONE = """
import os, sys, time
sys.stdin.readline()
if ORDINAL == 1:
    os.close(0)
    print("done 0", flush=True)
    time.sleep(0.3)
    os._exit(9)
print("done 0", flush=True)
sys.exit(0 if not sys.stdin.readline() else 4)
"""


@pytest.fixture
def acting(monkeypatch):
    """Start a script instead of workers; how often so far is its `ORDINAL`."""
    count = []

    def use(script):
        def start(folder, *_):
            count.append(1)
            code = script.replace("ORDINAL", str(len(count)))
            with open(folder / "log.txt", "a") as log:
                return subprocess.Popen(
                    [sys.executable, "-S", "-c", code],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )

        monkeypatch.setattr(module, "_start", start)
        return count

    return use


def test_a_death_is_of_its_group_and_another_worker_goes_on(tmp_path, acting):
    count = acting(DIES)
    paths = [path for path, _ in laid_out(tmp_path / "study", tiny(seeds=4), lanes=4)]
    assert not processes(paths, options(), workers=1)
    assert len(count) == 2
    states = [{(line.status, line.error) for line in read_runs(path)} for path in paths]
    assert states == [{("failed", "process ended by exit code 3: last words")}, {("planned", None)}]


def test_a_death_between_groups_costs_none(tmp_path, acting):
    count = acting(GONE)
    paths = [path for path, _ in laid_out(tmp_path / "study", tiny(seeds=4), lanes=4)]
    assert processes(paths, options(), workers=1)
    assert len(count) == 2
    assert {status for status, _ in statuses(tmp_path / "study").values()} == {"planned"}


def test_no_more_workers_than_groups(tmp_path, acting):
    count = acting(DIES.replace("ORDINAL", "0"))
    assert processes([path for path, _ in laid_out(tmp_path / "study", tiny())], options(), workers=3)
    assert len(count) == 1
