"""array_record files, written by the library itself and found where tensorflow_datasets leaves them."""

import sys
from pathlib import Path

import numpy as np
import pytest
from image_files import GREY, LABELS, fails, holds, png
from test_data_tfrecord import example

from tasks.data import load, optional

writing = pytest.importorskip("array_record.python.array_record_module")
NAME = "mnist-train.array_record-00000-of-00001"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_records(path: Path, records) -> Path:
    writer = writing.ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
    return path


def examples(images=GREY, labels=LABELS):
    return [example(png(image), int(label)) for image, label in zip(images, labels, strict=True)]


def test_records(tmp_path):
    holds(write_records(tmp_path / NAME, examples()), GREY)


def test_a_data_set_of_tensorflow_datasets_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    folder = tmp_path / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (10, 28, 28), np.uint8)
    write_records(folder / NAME, examples(images[:8], LABELS[:8]))
    write_records(folder / NAME.replace("train", "test"), examples(images[8:], LABELS[8:10]))
    data = load("mnist", 10)
    np.testing.assert_array_equal(data.images[..., 0], images)
    np.testing.assert_array_equal(data.labels, LABELS[:10])


def test_damaged_files(tmp_path):
    path = write_records(tmp_path / NAME, examples())
    whole = path.read_bytes()
    path.write_bytes(whole[:-2000])
    fails("is damaged, or no array_record file", path)
    path.write_bytes(b"some text")
    fails("is damaged, or no array_record file", path)
    fails("record 1 is no example with an image and a label", write_records(path, [examples()[0], b"\x0a\xff"]))


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    path = write_records(tmp_path / NAME, examples())
    monkeypatch.setitem(sys.modules, "array_record.python.array_record_module", None)
    assert optional.DISTRIBUTIONS["array_record"] == "array-record"
    fails("needs array-record, which is not installed; install the data extra", path)
