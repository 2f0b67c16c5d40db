"""Formats of other libraries: what they store is read exactly, what is damaged or missing says so."""

import gzip
import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from image_files import COLOUR, GREY, LABELS, RNG, fails, holds, png

from plasticity.errors import UserError
from tasks.data import cache, jpeg_pack, memory, optional, pictures
from tasks.data.sets import Images


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


# Parquet and Arrow ----------------------------------------------------------------------------------------------------


def table(images=GREY, labels=LABELS, image="image", label="label"):
    arrow = pytest.importorskip("pyarrow")
    rows = [{"bytes": png(one), "path": f"{i}.png"} for i, one in enumerate(images)]
    files = arrow.array(rows, arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())]))
    return arrow.table({"id": [str(i) for i in range(len(rows))], image: files, label: arrow.array(labels.tolist())})


def write_table(path: Path, content, kind="parquet") -> Path:
    if kind == "parquet":
        # Several row groups, as long files have.
        pytest.importorskip("pyarrow.parquet").write_table(content, path, row_group_size=3)
    else:
        ipc = pytest.importorskip("pyarrow.ipc")
        with (
            open(path, "wb") as file,
            {"stream": ipc.new_stream, "file": ipc.new_file}[kind](file, content.schema) as to,
        ):
            to.write_table(content, max_chunksize=3)
    return path


@pytest.mark.parametrize("kind", ["parquet", "stream", "file"])
@pytest.mark.parametrize("images", [GREY, COLOUR], ids=["grey", "colour"])
def test_tables(kind, images, tmp_path):
    holds(write_table(tmp_path / "t", table(images), kind), images)


def test_columns_of_cifar_100(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    content = table(COLOUR, image="img", label="fine_label")
    content = content.add_column(0, "coarse_label", arrow.array([7] * 10))
    holds(write_table(tmp_path / "t.parquet", content), COLOUR)


def test_images_as_plain_bytes(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    content = arrow.table({"pixels": [png(one) for one in GREY], "y": LABELS.tolist()})
    holds(write_table(tmp_path / "t.parquet", content), GREY)


def test_parts_of_a_set_in_a_folder(tmp_path):
    whole, folder = table(COLOUR), tmp_path / "snapshot" / "plain_text"
    folder.mkdir(parents=True)
    write_table(folder / "train-00000-of-00002.parquet", whole.slice(0, 4))
    write_table(folder / "test-00000-of-00001.parquet", whole.slice(8))
    fails("is not complete: 1 of 2 files train-*-of-00002 are there", tmp_path / "snapshot")
    write_table(folder / "train-00001-of-00002.parquet", whole.slice(4, 4))
    holds(tmp_path / "snapshot", COLOUR)


@pytest.mark.parametrize("kind", ["parquet", "stream", "file"])
def test_tables_cut_short_or_changed(kind, tmp_path):
    path = write_table(tmp_path / "t", table(), kind)
    whole = path.read_bytes()
    for size in (len(whole) // 2, 20):
        path.write_bytes(whole[:size])
        fails("is truncated or damaged", path)


def test_tables_that_hold_something_else(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    fails("has no column of images; found x (int64)", write_table(tmp_path / "a.parquet", arrow.table({"x": [1]})))
    fails("has no column of labels; found image", write_table(tmp_path / "b.parquet", table().select(["image"])))
    rows = arrow.array(
        [{"bytes": None, "path": "x.png"}], arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    )
    content = arrow.table({"image": rows, "label": [0]})
    fails(
        "1 images of column 'image' are not in the file (only their paths are)",
        write_table(tmp_path / "c.parquet", content),
    )
    content = table().set_column(2, "label", arrow.array([0] * 9 + [None], arrow.int64()))
    fails("column 'label' lacks 1 labels", write_table(tmp_path / "d.parquet", content))


def test_what_the_extra_is_called_where_it_is_missing(tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)

    (tmp_path / "t.parquet").write_bytes(b"PAR1 and so on")
    monkeypatch.setattr(optional.importlib, "import_module", missing)
    fails("is a parquet or Arrow file: reading it needs pyarrow, which is not installed", tmp_path / "t.parquet")
    fails("pip install 'plasticity-suite[data]'", tmp_path / "t.parquet")


# Pictures -------------------------------------------------------------------------------------------------------------


def test_modes_of_pictures():
    grey, colour = (
        pictures.decode([png(GREY[0]), png(GREY[1])], "x"),
        pictures.decode([png(GREY[0]), png(COLOUR[1])], "x"),
    )
    np.testing.assert_array_equal(grey, GREY[:2])
    # One in colour makes all of them three channels.
    np.testing.assert_array_equal(colour[0], np.repeat(GREY[0][..., None], 3, -1))
    np.testing.assert_array_equal(colour[1], COLOUR[1])
    np.testing.assert_array_equal(pictures.decode([png(COLOUR[0], mode="RGBA")], "x")[0], COLOUR[0])
    flat = np.full((6, 4), 255, np.uint8)
    np.testing.assert_array_equal(pictures.decode([png(flat, mode="1")], "x")[0], flat)
    assert pictures.decode([png(COLOUR[0], mode="P")], "x").shape == (1, 6, 4, 3)


def test_pictures_that_cannot_be_read():
    for files, message in (
        ([], "x has no images"),
        ([png(GREY[0]), b"no picture"], "x: image 1 is no picture that Pillow can read"),
        ([png(GREY[0]), png(GREY[1])[:-30]], "x: image 1 is damaged"),
        ([png(GREY[0]), png(GREY[1, :3])], "all images must have one size, found 6 x 4 (1), 3 x 4 (1)"),
    ):
        with pytest.raises(UserError) as error:
            pictures.decode(files, "x")
        assert message in str(error.value)


# JPEG pack, and what is kept of it ------------------------------------------------------------------------------------


def write_pack(path: Path, images=COLOUR, **other) -> Path:
    files = [png(image, "JPEG") for image in images]
    head = files[0][:20]
    assert all(file.startswith(head) for file in files)
    scans = [np.frombuffer(file[len(head) :], np.uint8) for file in files]
    arrays = {
        "header": np.frombuffer(head, np.uint8),
        "scans": np.concatenate(scans),
        "offsets": np.cumsum([0, *map(len, scans)]).astype(np.uint32),
        "labels": LABELS.astype(np.uint8),
        "n_train": np.array(8),
    }
    np.savez(path, **arrays | other)
    return path


def test_a_pack_is_what_pillow_decodes(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    pictures = [np.asarray(pillow.open(io.BytesIO(png(image, "JPEG")))) for image in COLOUR]
    holds(write_pack(tmp_path / "p.npz"), np.stack(pictures))


def test_a_pack_that_does_not_fit_together(tmp_path):
    for wrong in ({"offsets": np.arange(11)}, {"offsets": np.array([0])}, {"header": np.zeros(3)}):
        fails("offsets must rise from 0 to the size of scans", write_pack(tmp_path / "p.npz", **wrong))
    fails("10 images but 5 labels", write_pack(tmp_path / "p.npz", labels=LABELS[:5]))


def test_decoded_images_are_kept_until_the_file_changes(tmp_path, monkeypatch):
    pytest.importorskip("PIL.Image")
    path, calls = write_pack(tmp_path / "p.npz"), []
    monkeypatch.setattr(jpeg_pack.pictures, "decode", lambda files, where: (calls.append(where), COLOUR)[1])

    def read():
        images, labels = cache.decoded(path, jpeg_pack.read_pair)
        np.testing.assert_array_equal(images, COLOUR)
        np.testing.assert_array_equal(labels, LABELS)
        return len(calls)

    assert (read(), read()) == (1, 1)
    os.utime(path, ns=(0, 5))
    assert (read(), read()) == (2, 2)
    kept = list((tmp_path / "cache" / "plasticity-suite" / "decoded").iterdir())
    assert len(kept) == 1, "one entry a file, and nothing half-written beside it"
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    assert (read(), read()) == (3, 3)


def test_an_entry_belongs_to_one_file_and_one_part_of_it(tmp_path):
    for i, folder in enumerate("ab"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "f").write_bytes(b"x")
        os.utime(tmp_path / folder / "f", ns=(0, 0))
        for j, part in enumerate(("", "p")):
            cache.decoded(tmp_path / folder / "f", lambda _, n=2 * i + j: (GREY[n], LABELS), part)
    for i, folder in enumerate("ab"):
        for j, part in enumerate(("", "p")):
            kept, _ = cache.decoded(tmp_path / folder / "f", lambda _: pytest.fail("decoded again"), part)
            np.testing.assert_array_equal(kept, GREY[2 * i + j])


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    path = tmp_path / "f"
    path.write_bytes(b"x")
    assert cache.decoded(path, lambda _: (GREY, LABELS))[0] is GREY


# Memory ---------------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_before_it_is_read(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "big.npz", x=np.zeros((1000, 100, 100), np.uint8), y=np.zeros(1000, int))
    assert (tmp_path / "big.npz").stat().st_size < 10**6
    monkeypatch.setattr(memory, "available", lambda: 2**24)
    fails("big.npz does not fit into memory: 0.0 GiB are needed while it is read", tmp_path / "big.npz", 1000)
    fails("use fewer or smaller examples", tmp_path / "big.npz", 1000)


@pytest.mark.parametrize("kind", ["idx", "cifar", "pictures"])
def test_every_reader_asks(kind, tmp_path, monkeypatch):
    head = bytes([0, 0, 8, 3]) + struct.pack(">3I", 10, 6, 4)
    content = {"idx": head + GREY.tobytes(), "cifar": b"\x80\x02}.", "pictures": b""}[kind]
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    path = write_pack(tmp_path / "p.npz") if kind == "pictures" else path
    monkeypatch.setattr(memory, "available", lambda: 0)
    fails("does not fit into memory", path)


def test_packed_idx_is_asked_by_its_unpacked_size(tmp_path, monkeypatch):
    head = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2000, 28, 28)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(head + bytes(2000 * 784)))
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(memory, "available", lambda: 10**6)
    fails("does not fit into memory", path)


def test_statistics_of_more_images_than_are_counted_at_once():
    images = RNG.integers(0, 256, (2500, 2, 3, 3)).astype(np.uint8) // np.array([1, 2, 5], np.uint8)
    images[1500:] //= 3
    data = Images.of(images, np.zeros(2500, int), held_out=100)
    np.testing.assert_allclose(data.mean, (images[:2400] / 255).mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(data.std, (images[:2400] / 255).std((0, 1, 2)), rtol=1e-6)


def test_gib_in_the_message(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 4 * 2**30)
    memory.require(2**30, "x")
    with pytest.raises(
        UserError, match=r"6\.0 GiB are needed while it is read \(3 copies of 2\.0 GiB\), 4\.0 GiB are free"
    ):
        memory.require(2 * 2**30, "x")


def test_what_is_free_is_plausible():
    free = memory.available()
    assert free is None or 0 < free < 2**50
