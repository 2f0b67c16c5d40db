"""How programs of groups are compiled: LLVM at a low level on a CPU, unless the user says otherwise."""

from __future__ import annotations

import jax
import pytest

from sweeps import program

LEVEL = "xla_backend_optimization_level"


@pytest.mark.parametrize(
    ("backend", "flags", "expected"),
    [
        ("cpu", "", {LEVEL: 1}),
        ("cpu", "--xla_dump_to=x", {LEVEL: 1}),
        ("cpu", f"--{LEVEL}=3", {}),
        ("gpu", "", {}),
    ],
)
def test_level_of_optimisation(monkeypatch, backend, flags, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert program._compiler_options() == expected


def test_this_jax_knows_the_option():
    with pytest.raises(Exception, match="No such compile option"):
        jax.jit(lambda x: x + 1, compiler_options={f"{LEVEL}s": 1})(1.0)
    assert jax.jit(lambda x: x + 1, compiler_options={LEVEL: 1})(1.0) == 2.0
