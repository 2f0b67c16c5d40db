"""Shared by all tests of sweeps: one finished study to compare with, and a guard against writing beside it."""

from __future__ import annotations

import pytest
from tiny_study import FINE, environment, request, tiny

from sweeps.command import execute


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """Every test works in a folder of its own, where the default `runs/` goes; workers share the compiled programs."""
    monkeypatch.chdir(tmp_path)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The default tiny study, computed without interruption. Not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "study"
    assert execute(request(tiny(), folder, **FINE)) == 0
    return folder
