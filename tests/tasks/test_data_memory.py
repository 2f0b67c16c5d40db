"""What data take: 50,000 images of CIFAR's size under 128 runs at once stay below 4 GB of host memory.

In processes of their own, because the peak of a process never falls.
"""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PEAK = "import resource; print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
IMAGES = 50_000 * 3072


@pytest.fixture(scope="module")
def batches(tmp_path_factory) -> Path:
    """CIFAR-10 in size and layout, of noise."""
    folder, rng = tmp_path_factory.mktemp("cifar-10-batches-py"), np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        content = {
            "data": rng.integers(0, 256, (10_000, 3072), np.uint8),
            "labels": rng.integers(0, 10, 10_000).tolist(),
        }
        (folder / name).write_bytes(pickle.dumps(content, 2))
    return folder


def peak(code: str) -> int:
    """Bytes that a process held at most."""
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\n{PEAK}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return int(result.stdout.split()[-1])


def test_reading_takes_a_few_copies_and_no_floats(batches):
    code = "from tasks.data import load; data = load({!r}, {}, pool={})"
    empty = peak("from tasks.data import load; import jax.numpy as jnp; jnp.zeros(3).block_until_ready()")
    # The parts, the whole, what is asked for, and the device's copy; one copy as floats alone would be 4.
    for pool in (1, 2):
        assert peak(code.format(str(batches), 50_000, pool)) - empty < 5 * IMAGES


def test_a_group_of_128_runs(batches, tmp_path):
    task = f"label_reset(data={batches}, examples_used=50000, steps=2, num_tasks=1, batch_size=32)"
    options = [
        "--name",
        "m",
        "--task",
        task,
        "--no-fresh",
        "--seeds",
        "128",
        "--lanes",
        "128",
        "--out",
        str(tmp_path / "out"),
    ]
    code = f"from sweeps.__main__ import main; assert main({['grid', *options]!r}) == 0"
    assert peak(code) < 4 * 10**9
