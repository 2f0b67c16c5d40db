"""From a name or a path to `tasks.data.sets.Text`: the characters of a text as tokens, in their order.

`load_text(name_or_path, length, vocabulary)`. Names: `markov`, a random source of known entropy (see `markov`; its 32
tokens stand for nothing); `python_docs`, the language reference that every Python carries
(module pydoc_data; English with code, about 450,000 characters; its wording differs between versions of Python), and
`tiny_shakespeare` (Karpathy 2015; public domain). Files: text in UTF-8, or the same packed by gzip.

The `vocabulary - 1` most frequent characters of the whole text have tokens of their own, ties by code point; all others
share the last one, which stands for U+FFFD. A text with no more than `vocabulary` different characters needs no such
token. Tokens are numbered by code point. The ends of lines become one character each.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from plasticity.errors import UserError, unknown
from tasks.data import markov, memory, places
from tasks.data.sets import Text

#: Stands for every character without a token of its own.
OTHERS = "\N{REPLACEMENT CHARACTER}"
CODE_POINTS = 0x110000
#: Characters that are looked at at once.
BLOCK = 2**20


def _python_docs() -> str:
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


BUILT_IN: dict[str, Callable[[], str]] = {"python_docs": _python_docs}
GENERATED: dict[str, Callable[[], Text]] = {"markov": markov.text}
#: Names of texts that must be got first: what they are.
TEXTS = {"tiny_shakespeare": "plays of Shakespeare, 1,115,394 characters: Karpathy 2015, char-rnn; public domain"}
PATTERNS = ("{name}.txt", "{name}/*.txt")


def load_text(name_or_path: str, length: int | None = None, vocabulary: int = 128) -> Text:
    """The first `length` characters of a text (None: all of them) as tokens, of which there are at most `vocabulary`.

    Read once per process, and again if the file changes. Raises `UserError` if there is no such text, or it cannot be
    used as asked.
    """
    if vocabulary < 2:
        raise UserError(f"vocabulary must be at least 2, got {vocabulary}")
    if name_or_path in GENERATED:
        return GENERATED[name_or_path]()
    if name_or_path in BUILT_IN:
        return _text(name_or_path, None, 0, length, vocabulary)
    path = find_text(name_or_path)
    return _text(name_or_path, path.absolute(), path.stat().st_mtime_ns, length, vocabulary)


def find_text(name_or_path: str) -> Path:
    """The file behind a name or a path. Raises `UserError` if there is none."""
    if name_or_path in TEXTS:
        own, patterns = places.own(), [pattern.format(name=name_or_path) for pattern in PATTERNS]
        for pattern in patterns:
            for path in sorted(own.glob(pattern)):
                return path
        raise UserError(
            f"text {name_or_path!r} is not on this machine. Get it with  python -m tasks data get {name_or_path}  "
            f"or give the path of its file. Looked for in {own}: {', '.join(patterns)}"
        )
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f"{path} is a folder; a text is one file")
    raise UserError(
        f"{unknown('text', name_or_path, [*GENERATED, *BUILT_IN, *TEXTS])}, or the path of a text file in UTF-8"
    )


@lru_cache(maxsize=4)
def _text(name: str, path: Path | None, modified: int, length: int | None, vocabulary: int) -> Text:
    content = BUILT_IN[name]() if path is None else _read(path)
    where = name if path is None else str(path)
    if length is not None and not 2 <= length <= len(content):
        raise UserError(f"{where} has {len(content)} characters, {length} are asked for (at least 2)")
    codes = np.frombuffer(content.encode("utf-32-le", "surrogatepass"), "<u4")
    counts = np.zeros(CODE_POINTS, np.int64)
    for start in range(0, len(codes), BLOCK):  # bincount works on a copy of 8 bytes each
        counts += np.bincount(codes[start : start + BLOCK], minlength=CODE_POINTS)
    there = np.flatnonzero(counts)
    if len(there) < 2:
        raise UserError(f"{where} must have at least 2 different characters, found {len(there)}")
    if len(there) > vocabulary:
        # Sorted by frequency, and by code point where that is equal.
        there = np.sort(there[np.argsort(-counts[there], kind="stable")][: vocabulary - 1])
    token = np.full(CODE_POINTS, len(there), np.int32)
    token[there] = np.arange(len(there))
    alphabet = tuple(map(chr, there.tolist()))
    if counts[there].sum() < len(codes):
        alphabet += (OTHERS,)
    return Text.of(token[codes[:length]], alphabet)


def _read(path: Path) -> str:
    try:
        memory.require(4 * path.stat().st_size, str(path))  # 4 bytes a character, whatever it takes in the file
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
            memory.require(4 * len(content), str(path))
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path} is truncated or damaged ({error})") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        wrong = f"byte {error.start} ({error.object[error.start]:02x})"
        raise UserError(f"{path} is no text in UTF-8: {wrong} does not belong there") from None
