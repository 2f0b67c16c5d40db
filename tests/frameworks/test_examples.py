"""The examples for six frameworks: each runs as a script, is short enough to paste, and ends in an explanation."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
NEEDS = {"equinox_module": "equinox", "haiku_transform": "haiku", "pytorch": "torch"}


def test_there_is_one_for_each_framework():
    names = {"equinox_module", "flax_linen", "flax_nnx", "haiku_transform", "jax_functions", "pytorch"}
    assert {path.stem for path in EXAMPLES} == names


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_runs_and_explains(path):
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) < 25
    need = NEEDS.get(path.stem)
    if need and importlib.util.find_spec(need) is None:
        pytest.skip(f"{need} is not installed")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}
    # Threads of PyTorch that wait for each other spin, where tests share the cores.
    environment["OMP_NUM_THREADS"] = "1"
    # Compiling is most of an example's time: it shares what the tests keep.
    if kept := jax.config.jax_compilation_cache_dir:
        environment |= {"JAX_COMPILATION_CACHE_DIR": kept, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.02"}
    run = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=300, env=environment)
    assert run.returncode == 0, run.stderr
    assert "No sign of plasticity loss" in run.stdout
    assert "No probe was recorded" in run.stdout
