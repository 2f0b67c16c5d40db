"""What other libraries left on the machine is found by name, each in its own layout, in a stated order."""

import gzip
import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from plasticity.errors import UserError
from tasks.data import load, places

RNG = np.random.default_rng(3)
GREY = RNG.integers(0, 256, (12, 28, 28), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(12) % 10
#: The last two are test examples.
SPLITS = {"train": slice(0, 10), "test": slice(10, 12)}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """An empty home folder, which is the working folder too, and none of the variables that move caches."""
    for name in ("PLASTICITY_DATA", "KERAS_HOME", "TFDS_DATA_DIR", "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    monkeypatch.setattr(places, "DEBIAN", tmp_path / "usr" / "share" / "datasets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def idx(path: Path, images=GREY, packed=True) -> None:
    folder(path)
    for name, split in (("train", SPLITS["train"]), ("t10k", SPLITS["test"])):
        for what, array in (("images-idx3", images[split]), ("labels-idx1", LABELS[split].astype(np.uint8))):
            head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            content = head + array.tobytes()
            if packed:
                (path / f"{name}-{what}-ubyte.gz").write_bytes(gzip.compress(content))
            else:
                (path / f"{name}-{what}-ubyte").write_bytes(content)


def batches(path: Path, names=("data_batch_1", "test_batch"), key="labels", images=COLOUR, labels=LABELS) -> None:
    folder(path)
    for name, split in zip(names, SPLITS.values(), strict=True):
        planes = images[split].transpose(0, 3, 1, 2).reshape(-1, 3072)
        (path / name).write_bytes(pickle.dumps({"data": planes, key: labels[split].tolist()}, 2))


def binary(path: Path) -> None:
    folder(path)
    for name, split in zip(("data_batch_1.bin", "test_batch.bin"), SPLITS.values(), strict=True):
        planes = COLOUR[split].transpose(0, 3, 1, 2).reshape(-1, 3072)
        (path / name).write_bytes(np.concatenate([LABELS[split, None].astype(np.uint8), planes], 1).tobytes())


def keras_npz(path: Path) -> None:
    parts = {f"{what}_{name}": a[s] for name, s in SPLITS.items() for what, a in (("x", GREY), ("y", LABELS))}
    np.savez(folder(path.parent) / path.name, **parts)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    pytest.importorskip("PIL.Image").fromarray(image).save(file, "PNG")
    return file.getvalue()


def table(split: slice, images: np.ndarray, image="image", label="label"):
    arrow = pytest.importorskip("pyarrow")
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    rows = [{"bytes": png(one), "path": None} for one in images[split]]
    return arrow.table({image: arrow.array(rows, kind), label: LABELS[split].tolist()})


def hub(path: Path, images=COLOUR, image="img", label="label") -> None:
    """A snapshot as the hub's client keeps it: the names are links to files that are called by their checksums."""
    blobs, config = folder(path.parents[1] / "blobs"), folder(path / "plain_text")
    for name, split in SPLITS.items():
        pytest.importorskip("pyarrow.parquet").write_table(table(split, images, image, label), blobs / name[::-1])
        (config / f"{name}-00000-of-00001.parquet").symlink_to(blobs / name[::-1])


def arrow(path: Path, stem: str) -> None:
    folder(path)
    for name, split in SPLITS.items():
        content = table(split, GREY)
        with pytest.importorskip("pyarrow.ipc").new_stream(str(path / f"{stem}-{name}.arrow"), content.schema) as to:
            to.write_table(content)


# Each library's layout ------------------------------------------------------------------------------------------------

ARROW = ".cache/huggingface/datasets"
HUB = ".cache/huggingface/hub"
LAYOUTS = {
    "fashion_mnist_full": {
        "Debian": ("usr/share/datasets/fashion-mnist", idx),
        "torchvision": ("data/FashionMNIST/raw", lambda path: idx(path, packed=False)),
        "Keras": (".keras/datasets/fashion-mnist", idx),
        "the suite": (".cache/plasticity-suite/data/fashion_mnist_full", idx),
    },
    "mnist": {
        "torchvision": ("datasets/MNIST/raw", idx),
        "Keras": (".keras/datasets/mnist.npz", keras_npz),
        "datasets": (f"{ARROW}/ylecun___mnist/mnist/0.0.0/77f3279092a1", lambda path: arrow(path, "mnist")),
        "datasets, older": (f"{ARROW}/mnist/mnist/1.0.0/9d494b7f466d", lambda path: arrow(path, "mnist")),
        "hub": (f"{HUB}/datasets--ylecun--mnist/snapshots/77f3", lambda path: hub(path, GREY, "image")),
    },
    "kmnist": {"torchvision": ("data/KMNIST/raw", idx)},
    "cifar10": {
        "torchvision": ("data/cifar-10-batches-py", batches),
        "Keras 3": (".keras/datasets/cifar-10-batches-py-target/cifar-10-batches-py", batches),
        "older Keras": (".keras/datasets/cifar-10-batches-py", batches),
        "downloads of TFDS": ("tensorflow_datasets/downloads/extracted/TAR_GZ.cs/cifar-10-batches-bin", binary),
        "hub": (f"{HUB}/datasets--uoft-cs--cifar10/snapshots/0b2714987fa4", hub),
        "hub, older": (f"{HUB}/datasets--cifar10/snapshots/0b2714987fa4", hub),
    },
    "cifar100": {
        "torchvision": ("data/cifar-100-python", lambda path: batches(path, ("train", "test"), "fine_labels")),
        "hub": (f"{HUB}/datasets--uoft-cs--cifar100/snapshots/ae", lambda path: hub(path, label="fine_label")),
    },
}


@pytest.mark.parametrize(
    ("name", "library"), [(name, library) for name, found in LAYOUTS.items() for library in found], ids=str
)
def test_found_by_name(name, library, home):
    path, write = LAYOUTS[name][library]
    write(home / path)
    data = load(name, 10, held_out=2)
    np.testing.assert_array_equal(np.squeeze(data.images), COLOUR if "cifar" in name else GREY)
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.classes == (100 if name == "cifar100" else 10)
    assert places.found(name) in ((home / path), *(home / path).parents)


def test_records_of_tfds_of_the_highest_version(home):
    pytest.importorskip("PIL.Image")
    from test_data_tfrecord import example, record

    for version, images in (("3.0.2", GREY), ("3.0.10", GREY[::-1]), ("1.9.0", GREY[:0])):
        path = folder(home / "tensorflow_datasets" / "mnist" / version)
        for name, split in SPLITS.items():
            rows = zip(images[split], LABELS[split].tolist(), strict=False)
            content = b"".join(record(example(png(one), label)) for one, label in rows)
            (path / f"mnist-{name}.tfrecord-00000-of-00001").write_bytes(content)
    np.testing.assert_array_equal(load("mnist", 12).images[..., 0], GREY[::-1])


@pytest.mark.parametrize(
    ("variable", "name", "below", "write"),
    [
        ("PLASTICITY_DATA", "mnist", "mnist", idx),
        ("PLASTICITY_DATA", "mnist", "MNIST/raw", idx),
        ("KERAS_HOME", "mnist", "datasets/mnist.npz", keras_npz),
        ("TFDS_DATA_DIR", "cifar10", "downloads/extracted/x/cifar-10-batches-bin", binary),
        ("HF_HOME", "cifar10", "hub/datasets--cifar10/snapshots/1", hub),
        ("HF_HUB_CACHE", "cifar10", "datasets--cifar10/snapshots/1", hub),
        ("HF_DATASETS_CACHE", "mnist", "mnist/mnist/1.0.0/2", lambda path: arrow(path, "mnist")),
    ],
)
def test_variables_move_the_places(variable, name, below, write, home, monkeypatch):
    write(home / "elsewhere" / below)
    assert places.found(name) is None
    monkeypatch.setenv(variable, str(home / "elsewhere"))
    assert load(name, 12).examples == 12


def test_the_first_place_counts(home):
    idx(home / ".keras/datasets/fashion-mnist", GREY[::-1])
    idx(home / "usr/share/datasets/fashion-mnist", GREY)
    np.testing.assert_array_equal(load("fashion_mnist_full", 12).images[..., 0], GREY)


def test_a_folder_without_training_examples_is_passed_over(home):
    folder(home / "data/MNIST/raw")
    idx(home / "datasets/MNIST/raw")
    assert places.found("mnist") == home / "datasets/MNIST/raw"


def test_the_embedded_set_is_the_same_whatever_is_found(home):
    idx(home / "usr/share/datasets/fashion-mnist")
    assert load("fashion_mnist", 12).counts != tuple(np.bincount(LABELS).tolist())
    with pytest.raises(UserError, match="examples_used asks for 10001; more of them are in fashion_mnist_full"):
        load("fashion_mnist", 10_001)


# What is refused ------------------------------------------------------------------------------------------------------


def test_nowhere_says_where_it_was_looked_for_and_how_to_get_it(home):
    with pytest.raises(UserError) as error:
        load("cifar10", 10)
    message = str(error.value)
    assert "data set 'cifar10' is not on this machine. Get it with  python -m tasks data get cifar10" in message
    for place in ("data/cifar-10-batches-py", ".keras/datasets/cifar-10-batches-py", "datasets--uoft-cs--cifar10"):
        assert place in message


def test_another_set_under_the_name_is_refused(home):
    batches(home / "data/cifar-10-batches-py", images=COLOUR, labels=LABELS + 1)
    with pytest.raises(
        UserError, match=r"does not hold cifar10: it must have images of shape .* and 10 classes, found .* 11"
    ):
        load("cifar10", 10)
    keras_npz(home / ".keras/datasets/mnist.npz")
    np.savez(home / ".keras/datasets/mnist.npz", x_train=GREY[:, :14], y_train=LABELS)
    with pytest.raises(UserError, match=r"does not hold mnist: .* \(28, 28, 1\) and 10 classes, found \(14, 28, 1\)"):
        load("mnist", 10)


def test_a_damaged_copy_is_an_error_and_not_passed_over(home):
    idx(home / "data/MNIST/raw")
    keras_npz(home / ".keras/datasets/mnist.npz")
    (home / "data/MNIST/raw/t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"the labels of t10k-images-idx3-ubyte.gz are missing"):
        load("mnist", 10)


# Folders as paths -----------------------------------------------------------------------------------------------------


def test_a_root_of_torchvision_stands_for_its_only_set(home):
    idx(home / "root/MNIST/raw")
    np.testing.assert_array_equal(load(str(home / "root"), 10, held_out=2).images[..., 0], GREY)
    idx(home / "root/FashionMNIST/raw")
    with pytest.raises(UserError, match=r"holds several data sets; name one: .*FashionMNIST.raw, .*MNIST.raw"):
        load(str(home / "root"), 10)


def test_unpacked_files_are_preferred_and_not_read_twice(home):
    idx(home / "raw", packed=True)
    idx(home / "raw", packed=False)
    assert load("raw", 10, held_out=2).images.shape == (12, 28, 28, 1)
    with pytest.raises(UserError, match="has 12 examples, examples_used asks for 13"):
        load("raw", 13)


def test_test_examples_of_an_npz_follow_the_training_ones(home):
    keras_npz(home / "mnist.npz")
    np.testing.assert_array_equal(load(str(home / "mnist.npz"), 10, held_out=2).images[..., 0], GREY)
    np.savez(home / "b.npz", x_train=GREY, y_train=LABELS, x_test=GREY[:, :5], y_test=LABELS)
    with pytest.raises(UserError, match="are not of one kind"):
        load(str(home / "b.npz"), 10)


def test_every_name_has_places_in_known_folders():
    known = places.roots()
    for name in places.SETS:
        assert {place.whose for place in places.SETS[name].places} <= set(known)
        assert list(places.candidates(name))
