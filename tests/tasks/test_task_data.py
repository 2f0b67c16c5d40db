"""Readers and their errors: what the user has is read exactly, and what cannot be read says why."""

import dataclasses
import gzip
import struct
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.errors import UserError
from tasks.base import tasks
from tasks.data import load
from tasks.data.load import EMBEDDED

MNIST = Path(__file__).resolve().parents[3] / "shared" / "data" / "mnist"
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 6, 4), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (12, 6, 4, 3), dtype=np.uint8)
LABELS = (np.arange(12) % 3).astype(np.uint8)


def idx_bytes(array: np.ndarray, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder: Path, images=IMAGES, labels=LABELS, packed=False) -> Path:
    ending, pack = (".gz", gzip.compress) if packed else ("", bytes)
    (folder / f"my-labels-idx1-ubyte{ending}").write_bytes(pack(idx_bytes(labels)))
    path = folder / f"my-images-idx3-ubyte{ending}"
    path.write_bytes(pack(idx_bytes(images)))
    return path


def fails(message: str, path, examples_used=12, pool=1) -> None:
    """`load` raises a `UserError` that contains `message` literally."""
    with pytest.raises(UserError) as error:
        load(str(path), examples_used, pool)
    assert message in str(error.value), f"\nwanted: {message}\nfound:  {error.value}"


# What is read ---------------------------------------------------------------------------------------------------------


def test_the_embedded_set():
    data = load("fashion_mnist", 10_000)
    assert data.images.shape == (10_000, 28, 28, 1)
    assert data.images.dtype == jnp.uint8
    assert data.labels.dtype == jnp.int32
    assert data.counts == (1000,) * 10
    np.testing.assert_array_equal(data.labels[:10], [9, 2, 1, 1, 6, 1, 4, 6, 5, 7])


def test_inputs_are_standardised_per_channel(tmp_path):
    np.savez(tmp_path / "c.npz", x=COLOUR, y=LABELS)
    data = load(str(tmp_path / "c.npz"), 12)
    x = np.asarray(data.inputs(jnp.arange(12)))
    by_hand = COLOUR / 255
    np.testing.assert_allclose(data.mean, by_hand.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(data.std, by_hand.std((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(x, (by_hand - by_hand.mean((0, 1, 2))) / by_hand.std((0, 1, 2)), atol=1e-5)


def test_blank_images_give_zeros_and_not_nan(tmp_path):
    np.savez(tmp_path / "blank.npz", x=np.zeros_like(IMAGES), y=LABELS)
    assert (load(str(tmp_path / "blank.npz"), 12).inputs(jnp.arange(12)) == 0).all()


@pytest.mark.parametrize("packed", [False, True])
def test_idx_plain_and_packed(packed, tmp_path):
    data = load(str(write_idx(tmp_path, packed=packed)), 12)
    np.testing.assert_array_equal(data.images[..., 0], IMAGES)
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.classes == 3


def test_idx_with_one_of_the_two_files_unpacked(tmp_path):
    path = write_idx(tmp_path, packed=True)
    plain = path.with_suffix("")
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    np.testing.assert_array_equal(load(str(plain), 12).labels, LABELS)


@pytest.mark.parametrize("keys", [("x", "y"), ("x_train", "y_train"), ("images", "labels")])
@pytest.mark.parametrize("images", [IMAGES, COLOUR], ids=["grey", "colour"])
def test_npz_keys_grey_and_colour(keys, images, tmp_path):
    # Labels as a column of int64, as Keras stores CIFAR's.
    np.savez_compressed(tmp_path / "a.npz", **{keys[0]: images, keys[1]: LABELS[:, None].astype(np.int64)})
    data = load(str(tmp_path / "a.npz"), 12)
    np.testing.assert_array_equal(data.images, images.reshape(12, 6, 4, -1))
    np.testing.assert_array_equal(data.labels, LABELS)


def test_classes_are_those_of_the_whole_file(tmp_path):
    path = write_idx(tmp_path, labels=np.array([0] * 11 + [4], np.uint8))
    data = load(str(path), 11)
    assert data.counts == (11, 0, 0, 0, 0)


def test_pool_averages_blocks_and_rounds(tmp_path):
    images = np.zeros((2, 2, 4), np.uint8)
    images[0] = [[0, 10, 255, 255], [20, 30, 255, 254]]
    np.savez(tmp_path / "p.npz", x=images, y=np.array([0, 1]))
    data = load(str(tmp_path / "p.npz"), 2, 2)
    # 15, and 1019 / 4 = 254.75.
    np.testing.assert_array_equal(data.images[..., 0], [[[15, 255]], [[0, 0]]])


def test_read_once_and_again_when_the_file_changes(tmp_path):
    import os

    path = write_idx(tmp_path)
    first = load(str(path), 12)
    assert load(str(path), 12) is first
    path.write_bytes(idx_bytes(IMAGES[::-1].copy()))
    os.utime(path, ns=(0, 0))
    np.testing.assert_array_equal(load(str(path), 12).images[..., 0], IMAGES[::-1])


def test_the_users_mnist():
    path = MNIST / "train-images-idx3-ubyte.gz"
    if not path.is_file():
        pytest.skip("MNIST is not beside the project")
    data = load(str(path), 60_000)
    assert data.images.shape == (60_000, 28, 28, 1)
    assert float(data.mean[0]) == pytest.approx(0.1307, abs=1e-4)
    assert float(data.std[0]) == pytest.approx(0.3081, abs=1e-4)
    assert data.counts == (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)


# What cannot be read --------------------------------------------------------------------------------------------------


def test_no_such_file_names_the_nearest_set_or_file(tmp_path):
    write_idx(tmp_path)
    fails("no data set or file 'fashion_mnits'. Did you mean 'fashion_mnist'? Allowed: fashion_mnist", "fashion_mnits")
    fails(f"Did you mean '{tmp_path}/my-images-idx3-ubyte'?", tmp_path / "my-image-idx3-ubyte")
    fails("no data set or file", "/nowhere/at/all")


def test_a_folder_names_its_files(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    fails(f"{tmp_path} is a folder; name a file in it: my-images-idx3-ubyte", tmp_path)
    (tmp_path / "empty").mkdir()
    fails("it has no file of images that is read", tmp_path / "empty")


def test_no_known_format(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    fails(
        "is in no format that is read here: it begins with 68 65 6c 6c; allowed: idx (00 00), packed idx (1f 8b), npz",
        tmp_path / "notes.txt",
    )
    (tmp_path / "void").write_bytes(b"")
    fails("it begins with nothing", tmp_path / "void")


@pytest.mark.parametrize("packed", [False, True])
def test_truncated_idx_says_expected_and_found(packed, tmp_path):
    path = write_idx(tmp_path)
    whole = path.read_bytes()
    assert len(whole) == 16 + 288
    path.write_bytes(gzip.compress(whole[:100]) if packed else whole[:100])
    fails("is truncated: expected 304 bytes for shape (12, 6, 4), found 100", path)


def test_idx_gz_cut_short_in_its_packed_bytes(tmp_path):
    path = write_idx(tmp_path, packed=True)
    path.write_bytes(path.read_bytes()[:-100])
    fails("is truncated: expected 304 bytes for shape (12, 6, 4), found ", path)


def test_damaged_gzip(tmp_path):
    path = write_idx(tmp_path, packed=True)
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF
    path.write_bytes(content)
    fails("is damaged: gzip cannot unpack it (CRC check failed", path)


def test_idx_with_a_cut_header(tmp_path):
    path = write_idx(tmp_path)
    path.write_bytes(path.read_bytes()[:10])
    fails("is truncated: the header has 16 bytes, found 10", path)


def test_idx_longer_than_its_header_says(tmp_path):
    path = write_idx(tmp_path)
    path.write_bytes(path.read_bytes() + b"!")
    fails("is longer than its header says: expected 304 bytes for shape (12, 6, 4), found 305", path)


def test_wrong_magic(tmp_path):
    path = write_idx(tmp_path)
    path.write_bytes(gzip.compress(b"\x93NUMPY" + path.read_bytes()))
    fails("is no idx file: it must begin with 00 00 08 03 (images), found 93 4e 55 4d", path)


def test_wrong_type_and_axes_in_idx(tmp_path):
    path = write_idx(tmp_path)
    path.write_bytes(idx_bytes(IMAGES.astype(">f4"), kind=0x0D))
    fails("images must be unsigned bytes (idx type 0x08), found idx type 0x0d", path)
    path.write_bytes(idx_bytes(LABELS))
    fails("images must have 3 axes, found 1; is this a file of something else?", path)


def test_missing_labels(tmp_path):
    path = write_idx(tmp_path)
    (tmp_path / "my-labels-idx1-ubyte").unlink()
    fails(
        "the labels of my-images-idx3-ubyte are missing: neither my-labels-idx1-ubyte nor my-labels-idx1-ubyte.gz", path
    )
    other = tmp_path / "pixels"
    other.write_bytes(path.read_bytes())
    fails("is no file of images by its name: it must contain 'images'", other)


def test_label_count_differs(tmp_path):
    fails("12 images but 11 labels", write_idx(tmp_path, labels=LABELS[:11]))


def test_fewer_examples_than_asked(tmp_path):
    fails("has 12 examples, examples_used asks for 13", write_idx(tmp_path), examples_used=13)
    fails("has 10000 examples, examples_used asks for 20000", "fashion_mnist", examples_used=20_000)


def test_pool_must_divide(tmp_path):
    fails("pool must divide the image size 6 x 4, got 3; allowed: 1, 2", write_idx(tmp_path), pool=3)
    fails("pool must divide the image size 28 x 28, got 5; allowed: 1, 2, 4, 7, 14, 28", "fashion_mnist", pool=5)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES / 255, LABELS, "images must be uint8 (grey levels 0 to 255), found float64"),
        (IMAGES.reshape(12, 24), LABELS, "images must be [n, height, width] or"),
        (COLOUR.transpose(0, 3, 1, 2), LABELS, "1 or 3 channels], found shape (12, 3, 6, 4)"),
        (IMAGES, LABELS / 2, "labels must be whole numbers [n], found float64 of shape (12,)"),
        (IMAGES, np.eye(3, dtype=int)[LABELS], "labels must be whole numbers [n], found int64 of shape (12, 3)"),
        (IMAGES, LABELS[:5], "12 images but 5 labels"),
        (IMAGES, LABELS.astype(int) - 1, "labels must be class numbers, from 0 and below the number of examples (12)"),
        (IMAGES, LABELS.astype(int) + 1_600_000_000, "found 1600000000 to 1600000002"),
        (IMAGES[:0], LABELS[:0], "has no images: shape (0, 6, 4, 1)"),
    ],
)
def test_wrong_arrays_in_npz(images, labels, message, tmp_path):
    np.savez(tmp_path / "a.npz", x=images, y=labels)
    fails(message, tmp_path / "a.npz")


@pytest.mark.parametrize("key", ["x", "y"])
def test_objects_in_npz_are_never_read(key, tmp_path):
    arrays = {"x": IMAGES, "y": LABELS}
    arrays[key] = np.array([{"run": "me"}] * 12, dtype=object)
    np.savez(tmp_path / "o.npz", **arrays)
    fails(f"{key} is an array of objects, which is never read", tmp_path / "o.npz")


def test_npz_without_known_keys_and_cut_short(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=IMAGES, target=LABELS)
    fails("must hold one of the pairs x and y, x_train and y_train, images and labels; found target, x", path)
    np.savez(path, x=IMAGES, y=LABELS)
    path.write_bytes(path.read_bytes()[:200])
    fails("is no whole npz file: it is truncated or damaged", path)


def test_npz_damaged_inside(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=IMAGES, y=LABELS)
    content = bytearray(path.read_bytes())
    content[250] ^= 0xFF
    path.write_bytes(content)
    fails("truncated or damaged", path)


# A task and its data --------------------------------------------------------------------------------------------------


def test_for_task_loads_what_the_config_names(tmp_path):
    task = tasks.get("label_reset")(data=str(write_idx(tmp_path)), examples_used=10, batch_size=5, pool=2)
    assert task.load().images.shape == (10, 3, 2, 1)


def test_check_says_what_does_not_fit(data):
    task = tasks.get("label_reset")(examples_used=200)
    task.check(data)
    for wrong, message in (
        (dataclasses.replace(task, examples_used=300), "examples_used is 300, the data have 200 examples"),
        (dataclasses.replace(task, examples_used=100), "examples_used is 100, the data have 200 examples"),
    ):
        with pytest.raises(UserError, match=message):
            wrong.check(data)
    with pytest.raises(UserError, match="at least 2 classes are needed, fashion_mnist has 1"):
        task.check(dataclasses.replace(data, counts=(200,)))
    with pytest.raises(UserError, match="the data have 150 images but 200 labels"):
        task.check(dataclasses.replace(data, images=data.images[:150]))
    single = dataclasses.replace(data, images=data.images[:1], labels=data.labels[:1])
    with pytest.raises(UserError, match="at least 2 examples are needed, examples_used is 1"):
        dataclasses.replace(task, examples_used=1, batch_size=1).check(single)
    with pytest.raises(UserError, match=r"batch_size must be at most examples_used \(50\), got 100"):
        tasks.get("label_reset")(examples_used=50)


def test_the_embedded_files_are_there_with_their_licence():
    for images in EMBEDDED.values():
        assert images.is_file()
        assert (images.parent / "LICENSE").is_file()
