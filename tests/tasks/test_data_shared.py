"""Real files that lie beside the project, in `$PLASTICITY_SHARED_DATA` or `../shared/data`; skipped without them."""

import os
from pathlib import Path

import numpy as np
import pytest

from tasks.data import load, load_series

FOLDER = Path(os.environ.get("PLASTICITY_SHARED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")


def shared(name: str) -> Path:
    if not (FOLDER / name).exists():
        pytest.skip(f"{name} is not beside the project")
    return FOLDER / name


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_mnist_in_a_folder():
    data = load(str(shared("mnist")), 60_000, held_out=10_000)
    assert data.counts == (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
    held = np.bincount(np.asarray(data.labels[60_000:]))
    assert held.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_a_little_of_cifar_10():
    data = load(str(shared("cifar10_tiny_600_200.npz")), 600, held_out=200)
    assert data.images.shape == (800, 32, 32, 3)
    assert data.counts == (60,) * 10


@pytest.mark.slow
def test_cifar_10_as_jpeg():
    pytest.importorskip("PIL")
    data = load(str(shared("cifar10_jpeg75.npz")), 50_000, held_out=10_000)
    assert data.counts == (5000,) * 10
    np.testing.assert_allclose(data.mean, [0.4913, 0.4821, 0.4465], atol=1e-4)
    np.testing.assert_allclose(data.std, [0.2452, 0.2428, 0.2606], atol=1e-4)


@pytest.mark.parametrize(
    ("part", "shape", "counts", "repeated"),
    [("elec", (45_312, 6), (26_075, 19_237), 0.853), ("weather", (18_159, 8), (12_461, 5_698), 0.680)],
)
def test_streams(part, shape, counts, repeated):
    data = load_series(f"{shared('streams_elec_weather.npz')}:{part}")
    assert data.features.shape == shape
    assert data.counts == counts
    labels = np.asarray(data.labels)
    assert (labels[1:] == labels[:-1]).mean() == pytest.approx(repeated, abs=5e-4)
