"""Text: every character is its token, rare ones share one, and what is no text says where."""

import gzip
from collections import Counter

import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.errors import UserError
from tasks.data import load_text, memory
from tasks.data.text import OTHERS


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PLASTICITY_DATA", str(tmp_path / "own"))


def write(tmp_path, content: str | bytes, name="t.txt"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def read_back(data) -> str:
    return "".join(data.alphabet[token] for token in data.tokens.tolist())


def fails(message: str, name, **options) -> None:
    with pytest.raises(UserError) as error:
        load_text(str(name), **options)
    assert message in str(error.value), f"\nwanted: {message}\nfound:  {error.value}"


def test_by_hand(tmp_path):
    data = load_text(write(tmp_path, "abba c"))
    assert data.alphabet == (" ", "a", "b", "c")
    assert data.tokens.tolist() == [1, 2, 2, 1, 0, 3]
    assert data.tokens.dtype == jnp.int32
    assert data.vocabulary == 4


@pytest.mark.parametrize("packed", [False, True])
def test_any_language_and_any_line_end(packed, tmp_path):
    text = "Größe, 大きさ, \U0001f600\nline\nline\n"
    content = ("\ufeff" + text.replace("\n", "\r\n", 2)).encode()
    data = load_text(write(tmp_path, gzip.compress(content) if packed else content))
    assert read_back(data) == text
    assert list(data.alphabet) == sorted(set(text))


def test_rare_characters_share_the_last_token(tmp_path):
    # Frequencies: a 4, b 3, and c, d, z 1 each, of which c has the lowest code point.
    data = load_text(write(tmp_path, "zdcabababa"), vocabulary=4)
    assert data.alphabet == ("a", "b", "c", OTHERS)
    assert read_back(data) == f"{OTHERS}{OTHERS}cabababa"
    assert load_text(write(tmp_path, "zdcabababa"), vocabulary=5).alphabet == ("a", "b", "c", "d", "z")
    assert load_text(write(tmp_path, "zdcabababa"), vocabulary=2).alphabet == ("a", OTHERS)


def test_ties_go_to_the_lower_code_point(tmp_path):
    text = "".join(map(chr, range(0x4000, 0x4400)))
    assert load_text(write(tmp_path, text[::-1]), vocabulary=301).alphabet == (*text[:300], OTHERS)


def test_the_alphabet_is_that_of_the_whole_text(tmp_path):
    data = load_text(write(tmp_path, "aaaabc"), length=4)
    assert data.tokens.tolist() == [0, 0, 0, 0]
    assert data.alphabet == ("a", "b", "c")


def test_the_text_that_python_carries():
    data = load_text("python_docs", length=1000, vocabulary=60)
    assert data.vocabulary == 60
    assert data.tokens.shape == (1000,)
    whole = load_text("python_docs")
    assert len(whole.tokens) > 300_000
    assert "statement" in read_back(whole)
    common = {letter for letter, _ in Counter(read_back(whole)).most_common(59)}
    assert set(data.alphabet) - {OTHERS} == common


def test_a_text_by_name(tmp_path):
    fails(
        "text 'tiny_shakespeare' is not on this machine. Get it with  python -m tasks data get tiny_sh",
        "tiny_shakespeare",
    )
    write(tmp_path, "to be or not", "own/tiny_shakespeare/input.txt")
    assert read_back(load_text("tiny_shakespeare")) == "to be or not"


def test_what_cannot_be_used(tmp_path, monkeypatch):
    fails(
        "unknown text 'python_doc'. Did you mean 'python_docs'? Allowed: markov, python_docs, tiny_shakespeare, or",
        "python_doc",
    )
    fails("is a folder; a text is one file", tmp_path)
    fails("is no text in UTF-8: byte 4 (ff) does not belong there", write(tmp_path, b"text\xff\xfe", "a"))
    fails("must have at least 2 different characters, found 0", write(tmp_path, "", "b"))
    fails("must have at least 2 different characters, found 1", write(tmp_path, "aaa", "c"))
    fails("has 3 characters, 4 are asked for", write(tmp_path, "abc", "d"), length=4)
    fails("has 3 characters, 1 are asked for", write(tmp_path, "abc", "d"), length=1)
    fails("vocabulary must be at least 2, got 1", "python_docs", vocabulary=1)
    fails("is truncated or damaged", write(tmp_path, gzip.compress(b"a text" * 50)[:-12], "e"))
    monkeypatch.setattr(memory, "available", lambda: 10)
    fails("does not fit into memory", write(tmp_path, "abc", "f"))


def test_random_text_is_read_back(tmp_path):
    rng = np.random.default_rng(0)
    text = "".join(map(chr, rng.integers(32, 0x2FFF, 5000)))
    assert read_back(load_text(write(tmp_path, text), vocabulary=10**6)) == text
