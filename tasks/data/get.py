"""Getting a data set for a user who has a network and asks for it: `python -m tasks data get NAME`.

Files are downloaded by pooch (the `data` extra), which compares checksums; the streams come in a wheel, which pip
downloads. Everything happens in a hidden folder beside the place that is meant, and takes that place only when it is
whole: a lost network, a wrong checksum or Ctrl-C leave nothing behind.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from plasticity.errors import UserError, unknown
from tasks.data import places
from tasks.data.optional import need
from tasks.data.sources import SOURCES, Remote, Source, Wheel

#: Seconds without an answer after which a connection counts as lost.
TIMEOUT = 30


def get(name: str, folder: Path | None = None, sources: Mapping[str, Source | Wheel] = SOURCES) -> Path:
    """Bring a data set into `folder` (the suite's own, see `places.own`) and return where it lies there.

    Nothing is downloaded if it is there. Raises `UserError` if the name is unknown, a file cannot be had, or its
    checksum is wrong.
    """
    if name not in sources:
        raise unknown("data set to get", name, sources)
    source = sources[name]
    folder = (folder or places.own()).expanduser().absolute()
    if isinstance(source, Wheel):
        target = folder / "scikit-multiflow" / source.file
        if not target.exists():
            with _aside(target) as aside:
                _pip(name, source, aside)
    else:
        target = folder / name
        if not target.exists():
            with _aside(target) as aside:
                aside.mkdir()
                for file in source.files:
                    _download(name, file, aside)
                    if source.members:
                        _unpack(aside / file.name, source.members)
    return target


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """A path to write to, which becomes `target` if all goes well and is removed if not."""
    new = not target.parent.exists()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        hidden = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise UserError(f"cannot write to {target.parent}: {error.strerror or error}") from None
    try:
        yield hidden / target.name
        os.replace(hidden / target.name, target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        if new and not target.exists():
            with suppress(OSError):  # another process may have put something there meanwhile
                target.parent.rmdir()


def _download(name: str, file: Remote, folder: Path) -> None:
    pooch = need("pooch", "data get")
    pooch.get_logger().setLevel("ERROR")
    faults = []
    for url in file.urls:
        host = urlsplit(url).netloc
        try:
            with _Bar(file.name) as bar:
                downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16, timeout=TIMEOUT)
                pooch.retrieve(url, file.checksum, fname=file.name, path=folder, downloader=downloader)
            return
        except ValueError as error:  # a refused address is one as well
            wrong = "hash" in str(error)
            faults.append(f"{host} sent a file with another checksum" if wrong else f"{url}: {error}")
        except OSError as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            faults.append(f"{host} answers {status}" if status else f"no connection to {host} ({type(error).__name__})")
    raise UserError(
        f"cannot get {name}: {file.name}: {'; '.join(faults)}. Nothing was written. Without a network, copy the files "
        f"from another machine to {folder.parents[1] / name}, or give their path as data"
    )


class _Bar:
    """A progress bar of rich as pooch wants one."""

    total = 0

    def __init__(self, what: str) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
        self.progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self.task = self.progress.add_task(what, total=None)

    def __enter__(self) -> _Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.progress.stop()

    def update(self, size: int) -> None:
        self.progress.update(self.task, total=self.total or None, advance=size)

    def reset(self) -> None:
        self.progress.update(self.task, completed=0)

    def close(self) -> None:
        self.progress.refresh()


def _unpack(archive: Path, members: tuple[str, ...]) -> None:
    """Put the files of these names from the archive beside it, whatever folders they lie in there, and remove it."""
    left = set(members)
    try:
        with tarfile.open(archive) as files:
            for file in files:
                base = Path(file.name).name
                content = files.extractfile(file) if file.isfile() and base in left else None
                if content is not None:
                    left.remove(base)
                    with (archive.parent / base).open("wb") as to:
                        shutil.copyfileobj(content, to)
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{archive.name} cannot be unpacked ({error})") from None
    if left:
        raise UserError(f"{archive.name} lacks {', '.join(sorted(left))}")
    archive.unlink()


def _pip(name: str, wheel: Wheel, target: Path) -> None:
    options = ["--no-deps", "--only-binary=:all:", "--python-version", wheel.python, "--platform", wheel.platform]
    by_hand = f"pip download {' '.join(options)} {wheel.requirement}"
    if importlib.util.find_spec("pip") is None:
        raise UserError(f"cannot get {name}: pip is not installed here. On a machine that has it:  {by_hand}")
    quiet = ["--disable-pip-version-check", "--no-input", "--quiet", "--retries", "1", "--timeout", str(TIMEOUT)]
    pip = [sys.executable, "-m", "pip", "download"]
    command = [*pip, *quiet, *options, "--dest", str(target.parent), wheel.requirement]
    with Console(stderr=True).status(f"pip downloads {wheel.requirement} (16 MB), which is read and not installed"):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode or not target.is_file():
        said = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        raise UserError(
            f"cannot get {name}: pip could not download {wheel.requirement} "
            f"({said[-1].removeprefix('ERROR: ') if said else 'it did not say why'}). Nothing was written. "
            f"On a machine with a network:  {by_hand}  and put the wheel into {target.parents[1]}"
        )
    kind, _, digits = wheel.checksum.partition(":")
    with target.open("rb") as file:
        if hashlib.file_digest(file, kind).hexdigest() != digits:
            raise UserError(f"cannot get {name}: {wheel.file} has another checksum than expected. Nothing was written")
