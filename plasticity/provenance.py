"""Provenance: where, when and with what a result was computed, as plain data for `provenance.json`."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("plasticity-suite", "jax", "jaxlib", "flax", "optax", "numpy", "gymnasium", "ale-py")


def provenance() -> dict[str, Any]:
    """Command line, code version, software, machine and numerical settings of this process."""
    device = jax.local_devices()[0]
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
        **git_state(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "platform": platform.platform(),
        "device": device.device_kind,
        "backend": device.platform,
        "local_devices": jax.local_device_count(),
        "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "matmul_precision": jax.config.jax_default_matmul_precision or "default",  # pyrefly: ignore
        "x64": jax.config.jax_enable_x64,  # pyrefly: ignore
        "prng": jax.config.jax_default_prng_impl,  # pyrefly: ignore
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def peak_memory_mib() -> float | None:
    """Peak resident memory of this process in MiB, since it started or since `reset_peak_memory`; None if unknown."""
    try:
        # Where there is a choice not `ru_maxrss`: a process inherits that from the one that started it.
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return round(int(line.split()[1]) / 1024, 1)
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 * 1024 if sys.platform == "darwin" else 1024), 1)


def reset_peak_memory() -> None:
    """Let the peak begin anew from the memory that is held now, where the platform can (Linux: proc(5), clear_refs)."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def git_state() -> dict[str, Any]:
    """Commit of the clone this package lies in and whether it has uncommitted changes; empty outside a clone."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
