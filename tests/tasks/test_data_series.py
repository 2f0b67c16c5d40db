"""Streams: what a table says is read in its order, and what is missing in it is said by row and column."""

import gzip
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.errors import UserError
from plasticity.spec import parse
from tasks.data import load_series, memory, sea, series

ROWS = 30
RNG = np.random.default_rng(4)
FEATURES = RNG.normal(size=(ROWS, 3)).astype(np.float32).round(4)
LABELS = np.arange(ROWS) % 3


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PLASTICITY_DATA", str(tmp_path / "own"))


def text(features=FEATURES, labels=LABELS, header="a,b,c,class", separator=",") -> str:
    rows = [
        separator.join([*(f"{v:.4f}" for v in row), str(label)]) for row, label in zip(features, labels, strict=True)
    ]
    return "\n".join([header.replace(",", separator), *rows] if header else rows) + "\n"


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def holds(path, labels=LABELS, features=FEATURES, **options) -> None:
    data = load_series(str(path), **options)
    assert data.features.dtype == jnp.float32
    assert data.labels.dtype == jnp.int32
    np.testing.assert_allclose(data.features, features, atol=1e-6)
    np.testing.assert_array_equal(data.labels, labels)
    assert data.counts == tuple(np.bincount(labels).tolist())


def fails(message: str, path, **options) -> None:
    with pytest.raises(UserError) as error:
        load_series(str(path), **options)
    assert message in str(error.value), f"\nwanted: {message}\nfound:  {error.value}"


# Text -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["a,b,c,class", ""], ids=["header", "no header"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv(header, separator, tmp_path):
    holds(write(tmp_path / "s.csv", text(header=header, separator=separator)))


def test_csv_packed_with_a_mark_and_windows_lines_and_blank_ones(tmp_path):
    content = "\ufeff\r\n" + text().replace("\n", "\r\n\r\n")
    holds(write(tmp_path / "s.csv.gz", gzip.compress(content.encode())))


def test_a_header_over_text_labels_and_quotes(tmp_path):
    names = np.array(["UP", "DOWN", "a, b"])[LABELS]
    content = text(labels=[f'"{name}"' for name in names], header='"a","b","c","class"')
    # In the order of the alphabet: DOWN, UP, a.
    holds(write(tmp_path / "s.csv", content), labels=np.array([1, 0, 2])[LABELS])
    holds(write(tmp_path / "t.csv", text(labels=names[:2].repeat(15), header="")), labels=np.array([1, 0]).repeat(15))


def test_the_label_may_be_any_column(tmp_path):
    path = write(tmp_path / "s.csv", text(header="a,b,c,class"))
    shuffled = write(
        tmp_path / "t.csv", "\n".join(",".join(np.roll(line.split(","), 1)) for line in path.read_text().split())
    )
    holds(shuffled, label="class")
    holds(f"{shuffled}:class")
    fails("unknown column of", f"{shuffled}:clas")
    fails("Did you mean 'class'? Allowed: a, b, c, class", f"{shuffled}:clas")


@pytest.mark.parametrize("offset", [-1, 1, 100])
def test_labels_become_classes_from_zero(offset, tmp_path):
    holds(write(tmp_path / "s.csv", text(labels=LABELS + offset)))
    holds(write(tmp_path / "t.csv", text(labels=2 * LABELS + offset)))


def test_classes_and_checks_are_those_of_all_rows(tmp_path):
    path = write(tmp_path / "s.csv", text(labels=np.where(np.arange(ROWS) < 20, LABELS, 7)))
    data = load_series(str(path), rows=10)
    assert data.features.shape == (10, 3)
    assert data.counts == (4, 3, 3, 0)
    fails("has 30 rows, 31 are asked for", path, rows=31)
    fails("has 30 rows, 0 are asked for", path, rows=0)


def test_a_long_file_is_kept_once_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(series, "SLOW", 10)
    path = write(tmp_path / "s.csv", text(labels=np.array(["x", "y", "z"])[LABELS]))
    holds(path)
    series._series.cache_clear()
    monkeypatch.setattr(series.delimited, "read", None)
    holds(path)


@pytest.mark.parametrize("cell", ["", "?", "NA", "nan", "NaN", " ", "null", "-"])
def test_missing_values_are_refused_with_row_and_column(cell, tmp_path):
    lines = text().splitlines()
    lines[5] = f"1,{cell},3,0"
    expected = (
        f"s.csv, row 5 (line 6), column 'b': the value is missing ({cell.strip()!r}); leave such rows out, or fill them"
    )
    fails(expected, write(tmp_path / "s.csv", "\n".join(lines)))
    lines[5], lines[0] = f"1,2,3,{cell}", "0,0,0,0"
    fails("row 6 (line 6), column '4': the value is missing", write(tmp_path / "t.csv", "\n".join(lines)))


def test_missing_text_labels(tmp_path):
    fails(
        "row 5 (line 6), column 'class': the value is missing ('?')",
        write(tmp_path / "s.csv", text(labels=[*"abab?", *"ab" * 12, "a"])),
    )


@pytest.mark.parametrize("line", ["1,2,3", "1,2,3,a,b"])
def test_rows_of_another_length_where_labels_are_text(line, tmp_path):
    lines = text(labels=["ab"[i % 2] for i in range(ROWS)]).splitlines()
    lines[4] = line
    fails("row 4 (line 5): 4 columns are expected, found", write(tmp_path / "s.csv", "\n".join(lines)))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2,x,0", "row 4 (line 5), column 'c': a finite number is expected, found 'x'; leave out a column of text"),
        ("1,inf,2,0", "row 4 (line 5), column 'b': a finite number is expected, found 'inf'"),
        ("1,2,0", "row 4 (line 5): 4 columns are expected, found 3"),
        ("1,2,3,4,0", "row 4 (line 5): 4 columns are expected, found 5"),
        ("1,2,3,UP", "row 4 (line 5), column 'class': a finite number is expected, found 'UP'"),
        ("1,2,3,0.5", "row 4: labels must be whole numbers or text, one of each class, found 0.5"),
    ],
)
def test_rows_that_cannot_be_used(line, message, tmp_path):
    lines = text().splitlines()
    lines[4] = line
    fails(message, write(tmp_path / "s.csv", "\n".join(lines)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a line must have features and a label, found ''"),
        ("just text\n", "a line must have features and a label, found 'just text'"),
        ("a,b\n", "has a header and no rows"),
        ("a,b\n1,0\n2,0\n", "at least 2 classes are needed, all labels are 0.0"),
        ("\n".join(f"1,{i}" for i in range(1500)), "1500 different labels are no classes (at most 1000)"),
        (bytes(range(128, 256)) * 3, "a line must have features and a label"),
        (b"a,b\n1,0\n2,\x00\n", "row 2 (line 3), column 'b': a finite number is expected"),
        (gzip.compress(text().encode())[:-20], "is truncated or damaged"),
        (gzip.compress(text().encode())[:-6] + b"abcdef", "is truncated or damaged"),
    ],
)
def test_files_that_are_no_stream(content, message, tmp_path):
    fails(message, write(tmp_path / "s.csv", content))


# Arrays, tables, zip files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [("x", "y"), ("features", "labels")])
def test_npz(keys, tmp_path):
    np.savez(tmp_path / "s.npz", **{keys[0]: FEATURES.astype(float), keys[1]: LABELS[:, None] + 1})
    holds(tmp_path / "s.npz")


def test_one_of_several_streams_in_an_npz(tmp_path):
    np.savez(tmp_path / "s.npz", elec_x=FEATURES, elec_y=LABELS, rain_x=-FEATURES, rain_y=LABELS[::-1])
    holds(f"{tmp_path}/s.npz:elec")
    holds(f"{tmp_path}/s.npz:rain", LABELS[::-1], -FEATURES)
    fails(
        "must hold x and y; found elec_x, elec_y, rain_x, rain_y; say which is meant: s.npz:elec, s.npz:rain",
        tmp_path / "s.npz",
    )
    fails("must hold elk_x and elk_y;", f"{tmp_path}/s.npz:elk")
    # The notation is one word of the spec language.
    assert parse("task(data=~/folder/s.npz:elec)")[0].kwargs == {"data": "~/folder/s.npz:elec"}


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (FEATURES[0], LABELS, "features must be numbers [rows, features], found float32 (3,)"),
        (FEATURES.astype(str), LABELS, "features must be numbers [rows, features]"),
        (FEATURES, LABELS[:5], "30 rows of features, but labels of shape (5,)"),
        (
            np.where(FEATURES[6, 1] == FEATURES, np.nan, FEATURES),
            LABELS,
            "row 7, column 2: the value is missing or not finite (nan)",
        ),
        (FEATURES, LABELS + 0.5, "row 1: labels must be whole numbers or text, one of each class, found 0.5"),
        (
            FEATURES,
            np.where(LABELS, LABELS, np.nan),
            "row 1: labels must be whole numbers or text, one of each class, found nan",
        ),
        (FEATURES[:0], LABELS[:0], "has no rows"),
    ],
)
def test_wrong_arrays(x, y, message, tmp_path):
    np.savez(tmp_path / "s.npz", x=x, y=y)
    fails(message, tmp_path / "s.npz")


def zipped(path: Path, **tables: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("skmultiflow/__init__.py", "raise SystemExit")
        for name, content in tables.items():
            file.writestr(f"skmultiflow/data/datasets/{name}.csv", content)
    return path


def test_csv_files_in_a_zip(tmp_path):
    path = zipped(tmp_path / "a.whl", elec=text())
    holds(path)
    holds(f"{path}:elec")
    path = zipped(tmp_path / "b.whl", elec=text(), rain=text(-FEATURES))
    holds(f"{path}:rain", features=-FEATURES)
    fails("say which of its csv files is meant; allowed: b.whl:elec, b.whl:rain", path)
    fails("say which of its csv files is meant; allowed: (it holds no csv)", zipped(tmp_path / "c.whl"))
    path.write_bytes(path.read_bytes()[:300])
    fails("is no whole zip or npz file", path)


def test_a_zip_damaged_inside(tmp_path):
    path = zipped(tmp_path / "a.zip", elec=text())
    content = bytearray(path.read_bytes())
    at = content.index(b"elec.csv") + 60
    content[at : at + 40] = bytes(40)
    path.write_bytes(content)
    fails("is truncated or damaged", path)


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_tables(kind, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    names = arrow.array(np.array(["UP", "DOWN", "X"])[LABELS].tolist())
    columns = {"a": FEATURES[:, 0].tolist(), "class": names, "n": list(range(ROWS)), "flag": [True, False] * 15}
    table = arrow.table(columns)
    path = tmp_path / f"s.{kind}"

    def store(table) -> None:
        if kind == "parquet":
            pytest.importorskip("pyarrow.parquet").write_table(table, path, row_group_size=7)
        else:
            with pytest.importorskip("pyarrow.ipc").new_file(str(path), table.schema) as to:
                to.write_table(table)

    features = np.stack([FEATURES[:, 0], np.arange(ROWS), np.arange(ROWS) % 2 == 0], 1)
    store(table)
    holds(f"{path}:class", np.array([1, 0, 2])[LABELS], features)
    fails("unknown column of", f"{path}:klass")
    fails("column 'class': features must be numbers, found string; leave out a column of text", f"{path}:flag")
    series._series.cache_clear()
    store(table.set_column(1, "class", names.dictionary_encode()))
    holds(f"{path}:class", np.array([1, 0, 2])[LABELS], features)
    series._series.cache_clear()
    store(table.set_column(0, "a", arrow.array([1.0, 2.0, None] * 10)))
    fails("row 3, column 'a': the value is missing; leave such rows out", f"{path}:class")


# Names ----------------------------------------------------------------------------------------------------------------


def known(name: str, rows: int = 40) -> str:
    stream = series.STREAMS[name]
    labels = np.arange(rows) % stream.classes + 1
    return text(np.ones((rows, stream.features)), labels, header="")


@pytest.mark.parametrize("name", ["elec2", "weather", "covertype"])
def test_streams_by_name(name, tmp_path):
    own = tmp_path / "own"
    fails(f"stream {name!r} is not on this machine. Get it with  python -m tasks data get {name}", name)
    fails(f"{name}.csv.gz", name)
    stems = {stream.stem: known(key) for key, stream in series.STREAMS.items()}
    zipped(own / "scikit-multiflow" / "scikit_multiflow-0.4.1-cp37-x.whl", **stems)
    assert load_series(name).features.shape == (40, series.STREAMS[name].features)
    assert load_series(name).classes == series.STREAMS[name].classes
    write(own / f"{name}.csv", known(name, 50))
    assert load_series(name).labels.shape == (50,)
    write(own / f"{name}.csv", text())
    fails(f"does not hold {name}: it must have", name)


def test_no_such_stream(tmp_path):
    fails(
        "unknown stream 'elec'. Did you mean 'elec2'? Allowed: covertype, elec2, sea, weather, or the path of a csv",
        "elec",
    )
    fails("is a folder; a stream is one file in it", tmp_path)


def test_what_does_not_fit_into_memory(tmp_path, monkeypatch):
    path = write(tmp_path / "s.csv", text())
    monkeypatch.setattr(memory, "available", lambda: 0)
    fails("s.csv does not fit into memory", path)


# SEA ------------------------------------------------------------------------------------------------------------------


def test_sea_follows_its_four_rules_but_for_one_label_in_ten():
    data = load_series("sea")
    x, y = np.asarray(data.features, np.float64), np.asarray(data.labels)
    assert x.shape == (60_000, 3)
    assert 0 <= x.min() < 0.001
    assert 9.999 < x.max() <= 10
    np.testing.assert_allclose(x.mean(0), 5, atol=0.05)
    for block, theta in enumerate((8, 9, 7, 9.5)):
        rows = slice(15_000 * block, 15_000 * (block + 1))
        agreement = (y[rows] == (x[rows, 0] + x[rows, 1] <= theta)).mean()
        # Of 15,000 rows: three standard deviations are 0.0073.
        assert agreement == pytest.approx(0.9, abs=0.0073)
        # The area below the line in the square of side 10, or the whole less that above it.
        share = theta**2 / 200
        assert y[rows].mean() == pytest.approx(0.9 * share + 0.1 * (1 - share), abs=0.013)


def test_sea_is_the_same_on_every_machine():
    features, labels = sea.generate()
    again = np.random.Generator(np.random.PCG64(2001)).random((60_000, 4))
    np.testing.assert_array_equal(features, (10 * again[:, :3]).astype(np.float32))
    np.testing.assert_allclose(features[0], FIRST_OF_SEA, rtol=1e-6)
    assert labels[:20].tolist() == LABELS_OF_SEA
    assert load_series("sea", rows=100).features.shape == (100, 3)
    fails("sea has 60000 rows, 60001 are asked for", "sea", rows=60_001)


FIRST_OF_SEA = [4.236698150634766, 2.037245035171509, 4.751002788543701]
LABELS_OF_SEA = [1, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0]
