"""One synthetic study for the whole folder, read once: writing and reading it is most of what these tests cost."""

from __future__ import annotations

import pytest
from synthetic_games import make_games
from synthetic_study import make_study

from analysis.load import load


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A complete study: 3 task kinds, 2 factors, 5 seeds, 12 tasks."""
    return make_study(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def loaded(folder):
    """(study, frame) of it."""
    return load(folder)


@pytest.fixture(scope="session")
def flawed(tmp_path_factory):
    """A study with a diverged, a failed, a running, a planned and a missing run."""
    status = {
        ("label_reset", "layer_norm", 0): "diverged",
        ("label_reset", "l2(1e-3)", 1): "failed",
        ("input_permutation", "none", 2): "running",
        ("input_permutation", "none", 3): "planned",
        ("input_permutation", "none", 4): "missing",
    }
    return make_study(tmp_path_factory.mktemp("flawed"), tasks=2, names=["dead_units"], status=status)


@pytest.fixture(scope="session")
def games_folder(tmp_path_factory):
    """A complete study of three Atari games, two combinations, 3 seeds, 10 iterations of 1M frames."""
    return make_games(tmp_path_factory.mktemp("games"))


@pytest.fixture(scope="session")
def games(games_folder):
    """(study, frame) of it."""
    return load(games_folder)
