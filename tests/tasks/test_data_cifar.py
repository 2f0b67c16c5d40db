"""CIFAR batches: pickles are read without being run, in all the ways they are written, and in the binary version."""

import contextlib
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from plasticity.errors import UserError
from tasks.data import load
from tasks.data.cifar import read_pair

RNG = np.random.default_rng(1)
IMAGES = RNG.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
PLANES = IMAGES.transpose(0, 3, 1, 2).reshape(8, 3072).copy()
LABELS = [3, 0, 1, 2, 3, 0, 1, 2]


def by_python_2(labels=LABELS, key=b"labels") -> bytes:
    """The opcodes of the files that are handed out: protocol 2, text as bytes, the old name of numpy's module."""

    def short(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    kind = (
        b"cnumpy\ndtype\n" + short(b"u1") + b"K\x00K\x01\x87R(K\x03" + short(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2
    )
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + short(b"b") + b"\x87R"
    raw = b"T" + struct.pack("<i", PLANES.size) + PLANES.tobytes()
    array = empty + b"(K\x01K\x08M\x00\x0c\x86" + kind + b"K\x00tb\x89" + raw + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([n]) for n in labels) + b"e"
    names = short(b"batch_label") + short(b"testing batch 1 of 1")
    return b"\x80\x02}(" + names + short(b"data") + array + short(key) + numbers + b"u."


def batch(protocol=2, data=PLANES, labels=LABELS, key="labels") -> bytes:
    return pickle.dumps({b"batch_label": b"x", b"data": data, key.encode(): labels}, protocol)


def write(folder: Path, content: bytes, name="data_batch_1") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def fails(message: str, path: Path) -> None:
    with pytest.raises(UserError) as error:
        load(str(path), 8)
    assert message in str(error.value), f"\nwanted: {message}\nfound:  {error.value}"


# What is read ---------------------------------------------------------------------------------------------------------


WRITTEN = {
    "python 2": by_python_2(),
    "python 2, fine labels": by_python_2(key=b"fine_labels"),
    "new names": batch(),
    "old names": batch().replace(b"numpy._core", b"numpy.core"),
    "protocol 3": batch(3),
    "protocol 4": batch(4),
    "protocol 5": batch(5),
    "labels as an array": batch(labels=np.array(LABELS)),
    "other order of bytes": batch(labels=np.array(LABELS, ">i4")),
    "order of Fortran": batch(data=np.asfortranarray(PLANES)),
    "fine labels": batch(key="fine_labels"),
}


@pytest.mark.parametrize("content", WRITTEN.values(), ids=WRITTEN)
def test_a_batch(content, tmp_path):
    data = load(str(write(tmp_path, content)), 8)
    np.testing.assert_array_equal(data.images, IMAGES)
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.classes == 4


def test_the_hand_made_batch_is_what_pickle_reads():
    found = pickle.loads(by_python_2(), encoding="bytes")
    np.testing.assert_array_equal(found[b"data"], PLANES)
    assert found[b"labels"] == LABELS


def test_coarse_labels_are_not_taken(tmp_path):
    content = pickle.dumps({"data": PLANES, "coarse_labels": [0] * 8, "fine_labels": LABELS}, 2)
    np.testing.assert_array_equal(load(str(write(tmp_path, content, "train")), 8).labels, LABELS)


def test_a_folder_of_batches_in_order_and_test_examples_last(tmp_path):
    for i, name in enumerate(("data_batch_1", "data_batch_2", "test_batch")):
        write(tmp_path, batch(data=np.full_like(PLANES, i)), name)
    write(tmp_path, pickle.dumps({"label_names": ["a", "b"]}), "batches.meta")
    data = load(str(tmp_path), 16, held_out=8)
    np.testing.assert_array_equal(data.images[:, 0, 0, 0], np.repeat([0, 1, 2], 8))
    assert data.held_out == 8


def test_cifar_100_lies_in_train_and_test(tmp_path):
    write(tmp_path, batch(key="fine_labels"), "train")
    write(tmp_path, batch(data=PLANES[::-1], key="fine_labels"), "test")
    np.testing.assert_array_equal(load(str(tmp_path), 8, held_out=8).images, np.concatenate([IMAGES, IMAGES[::-1]]))


@pytest.mark.parametrize("before", [0, 1], ids=["CIFAR-10", "CIFAR-100"])
def test_the_binary_version(before, tmp_path):
    head = np.array([[9] * before + [label] for label in LABELS], np.uint8)
    path = write(tmp_path, np.concatenate([head, PLANES], axis=1).tobytes(), "data_batch_1.bin")
    data = load(str(path), 8)
    np.testing.assert_array_equal(data.images, IMAGES)
    np.testing.assert_array_equal(data.labels, LABELS)
    np.testing.assert_array_equal(load(str(tmp_path), 8).labels, LABELS)


# What is refused ------------------------------------------------------------------------------------------------------


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("place", ["alone", "as data", "as a label"])
def test_a_malicious_pickle_is_refused_and_not_run(protocol, place, tmp_path):
    target = tmp_path / "made by the pickle"
    bad = Malicious(target)
    content = {
        "alone": bad,
        "as data": {"data": bad, "labels": LABELS},
        "as a label": {"data": PLANES, "labels": [bad]},
    }
    path = write(tmp_path, pickle.dumps(content[place], protocol))
    with pytest.raises(UserError, match=f"refused, and nothing of it was run: the pickle names {os.name}.mkdir"):
        read_pair(path)
    if protocol >= 2:  # older ones are not taken for pickles at all
        fails("refused", path)
    assert not target.exists()
    pickle.loads(path.read_bytes())
    assert target.exists(), "the pickle is harmless: the test shows nothing"


@pytest.mark.parametrize(
    "name", ["builtins\neval", "builtins\ngetattr", "numpy\nload", "numpy.core.multiarray\nscalar"]
)
def test_nothing_else_may_be_named(name, tmp_path):
    path = write(tmp_path, b"\x80\x02c" + name.encode() + b"\n.")
    fails(f"the pickle names {name.replace(chr(10), '.')}, which no CIFAR batch needs", path)


def test_arrays_of_objects_are_refused(tmp_path):
    fails("arrays must be of whole numbers, found numpy type", write(tmp_path, batch(data=np.array([{}], object))))
    fails("arrays must be of whole numbers, found numpy type 'f8'", write(tmp_path, batch(labels=np.zeros(8))))


def test_stand_ins_given_nonsense(tmp_path):
    reconstruct = b"cnumpy.core.multiarray\n_reconstruct\n"
    for opcodes in (
        reconstruct + b")R",  # an array without content
        reconstruct + b")R(K\x01K\x02K\x03K\x04tb",  # numbers instead of shape, kind, order, bytes
        reconstruct + b")RK\x05b",  # a number instead of its state
        b"cnumpy\ndtype\n)R",
        b"c_codecs\nencode\nK\x01K\x02\x86R",
    ):
        path = write(tmp_path, b"\x80\x02}(U\x04data" + opcodes + b"U\x06labels](K\x00eu.")
        with pytest.raises(UserError, match="damaged"):
            load(str(path), 8)


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_batch_cut_short(protocol, tmp_path):
    whole = batch(protocol)
    for size in (3, 40, len(whole) // 2, len(whole) - 1):
        fails("is no whole pickle: it is truncated or damaged", write(tmp_path, whole[:size]))


def test_changed_bytes_give_a_batch_or_an_error_and_nothing_else(tmp_path):
    whole = by_python_2()
    head = len(whole) - PLANES.size - 40
    for i in range(400):
        content = bytearray(whole)
        place = int(RNG.integers(2, head)) if i % 2 else len(whole) - int(RNG.integers(1, 40))
        content[place] = int(RNG.integers(256))
        with contextlib.suppress(UserError):
            load(str(write(tmp_path, bytes(content), f"data_batch_{i}")), 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps([1, 2], 2), "it must hold a dictionary, found list"),
        (pickle.dumps({"data": 1}, 2), "it must hold data and labels or fine_labels; found data"),
        (batch(data=PLANES[:, :100]), "data must be uint8 [n, 3072], found uint8 of shape (8, 100)"),
        (batch(data=PLANES.astype(np.int64)), "data must be uint8 [n, 3072], found int64 of shape (8, 3072)"),
        (batch(data=[[1]]), "data must be an array or a list of whole numbers, found list"),
        (batch(labels="abc"), "labels must be an array or a list of whole numbers, found str"),
        (batch(labels=[0.5] * 8), "labels must be an array or a list of whole numbers, found list"),
        (batch(labels=[2**80] * 8), "labels is damaged"),
        (batch(labels=LABELS[:5]), "8 images but 5 labels"),
        (batch(labels=[100] * 8), "labels must be class numbers, from 0 and below the number of examples (8)"),
        (batch(labels=[-1] * 8), "found -1 to -1"),
    ],
)
def test_what_is_no_batch(content, message, tmp_path):
    fails(message, write(tmp_path, content))


def test_a_binary_file_of_another_size(tmp_path):
    fails(
        "its size must be a multiple of 3073 bytes (CIFAR-10) or 3074 (CIFAR-100), found 3000",
        write(tmp_path, bytes(3000), "a.bin"),
    )
    fails("found 0", write(tmp_path, b"", "b.bin"))


def test_batches_of_different_sizes(tmp_path):
    write(tmp_path, batch())
    np.savez(tmp_path / "x.npz", x=IMAGES[:, :16], y=LABELS)
    (tmp_path / "x.npz").rename(tmp_path / "data_batch_2")
    fails("images of one data set must have one size", tmp_path)
