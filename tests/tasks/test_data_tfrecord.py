"""TFRecord files: written here by hand, read exactly; what is damaged says where."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from image_files import COLOUR, GREY, LABELS, fails, holds, png

from tasks.data import tf_example, tfrecord


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def checksum(content: bytes) -> int:
    """CRC-32C bit by bit, masked."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def record(content: bytes) -> bytes:
    head = struct.pack("<Q", len(content))
    return head + struct.pack("<I", checksum(head)) + content + struct.pack("<I", checksum(content))


def varint(n: int) -> bytes:
    n &= 2**64 - 1
    return bytes([n & 127 | 128]) + varint(n >> 7) if n > 127 else bytes([n])


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def example(image: bytes, label: int, packed=True) -> bytes:
    numbers = field(1, varint(label)) if packed else b"\x08" + varint(label)
    floats = field(2, field(1, struct.pack("<f", 0.5)))
    features = {
        "id": field(1, field(1, b"train_7")),
        "image": field(1, field(1, image)),
        "w": floats,
        "label": field(3, numbers),
    }
    return field(1, b"".join(field(1, field(1, name.encode()) + field(2, value)) for name, value in features.items()))


def write_records(path: Path, images=GREY, packed=True) -> Path:
    pairs = zip(images, LABELS.tolist(), strict=True)
    path.write_bytes(b"".join(record(example(png(image), label, packed)) for image, label in pairs))
    return path


def test_checksums_known_from_rfc_3720():
    known = {bytes(32): 0x8A9136AA, b"\xff" * 32: 0x62A8AB43, bytes(range(32)): 0x46DD794E, b"123456789": 0xE3069283}
    np.testing.assert_array_equal(tfrecord.crc32c(list(known)), list(known.values()))
    np.testing.assert_array_equal(tfrecord.masked([b"abc", b""]), [checksum(b"abc"), checksum(b"")])


@pytest.mark.parametrize("packed", [True, False])
def test_records(packed, tmp_path):
    holds(write_records(tmp_path / "set-train.tfrecord-00000-of-00001", packed=packed), GREY)


def test_records_of_several_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(tfrecord, "BLOCK", 3)
    path = write_records(tmp_path / "set-train.tfrecord-00000-of-00001", COLOUR)
    holds(path, COLOUR)
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    fails("is damaged: a checksum of record 9 is wrong", path)


def test_negative_and_long_numbers():
    found = tf_example.example(
        field(1, field(1, field(1, b"n") + field(2, field(3, field(1, varint(-2) + varint(2**40))))))
    )
    assert found == {"n": [-2, 2**40]}


def test_records_cut_short_or_changed(tmp_path):
    path = write_records(tmp_path / "x.tfrecord")
    whole = path.read_bytes()
    size = len(record(example(png(GREY[0]), 0)))
    for kept, message in ((size + 5, "is truncated within record 1"), (size + 100, "is truncated within record 1")):
        path.write_bytes(whole[:kept])
        fails(message, path)
    path.write_bytes(b"\xff" * 8 + whole[8:])
    fails("is damaged, or no TFRecord file: the checksum of the head of record 0", path)
    path.write_bytes(b"some text that is long enough for a head")
    fails("no TFRecord file", path)
    path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    fails("damaged", path)
    path.write_bytes(whole[: size + 8] + bytes([whole[size + 8] ^ 1]) + whole[size + 9 :])
    fails("is damaged: a checksum of record 1 is wrong", path)


def test_records_of_something_else(tmp_path):
    path = tmp_path / "x.tfrecord"
    for content in (b"", b"\x0a\xff", b"\x0b", example(png(GREY[0]), 0).replace(b"label", b"lapel"), b"\xff" * 20):
        path.write_bytes(record(content))
        os.utime(path, ns=(0, len(content)))
        fails("record 0 is no example with an image and a label", path)
