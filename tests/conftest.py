"""Settings of all tests: programs are compiled fast and kept between sessions; hypothesis has no deadline."""

import gc
import os
from pathlib import Path

import jax
import pytest
from compiling import FLAGS
from hypothesis import settings

# Compilation dominates small tests, and a first example that compiles is not "flaky".
settings.register_profile("local", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

os.environ.setdefault("XLA_FLAGS", FLAGS)
# For matrices as small as those of tests, threads of linear algebra only wait for each other. It holds in pytest's
# workers and in programs started by a test; in the process of `-n 0` NumPy is there before this line.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def pytest_configure(config):
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR") and getattr(config, "cache", None) is not None:
        jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("xla")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.02)
    # Two sessions may meet in the cache; a half-written entry only means compiling once more.
    config.addinivalue_line("filterwarnings", "ignore:Error (reading|writing) persistent compilation cache:UserWarning")


def pytest_collection_finish(session):
    """Tracing makes many small objects beside the many that stay: collections are rarer, and pass over those."""
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


#: Each compiled program holds some mappings of memory until it is dropped; Linux allows a process 65,530 of them, and
#: beyond that compiling ends in a segmentation fault.
MAPPINGS = 20_000


@pytest.fixture(autouse=True, scope="module")
def _compiled_programs_are_dropped():
    """Between test files, once there are many: thousands of programs are compiled in a session."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > MAPPINGS:
        jax.clear_caches()
