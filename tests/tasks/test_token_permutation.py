"""Next-token prediction with tokens that swap names, and the Markov source with its known optimum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from plasticity.errors import UserError
from plasticity.method import Method
from plasticity.networks import networks
from plasticity.optimizers import optimizers
from plasticity.spec import build_one
from tasks.base import tasks
from tasks.data import markov
from tasks.train import start


def stream(more=""):
    return build_one(f"token_permutation({more})", tasks)


def test_targets_are_the_tokens_that_follow_and_names_are_swapped():
    task = stream("positions=6")
    data = task.load()
    state = task.init(jax.random.key(0), data)
    after = task.advance(state, jax.random.key(1), jnp.int32(1), data)
    text, names = np.asarray(data.tokens), np.asarray(after.current)
    assert sorted(names) == list(range(32))
    assert (names != np.arange(32)).all()
    plain = task.sample(state.current, jax.random.key(2), 50, jnp.int32(0), data)
    renamed = task.sample(after.current, jax.random.key(2), 50, jnp.int32(1), data)
    np.testing.assert_array_equal(renamed.x, names[np.asarray(plain.x)])
    np.testing.assert_array_equal(renamed.y, names[np.asarray(plain.y)])
    np.testing.assert_array_equal(plain.x[:, 1:], plain.y[:, :-1])
    windows = np.lib.stride_tricks.sliding_window_view(text, 7)
    for x, y in zip(np.asarray(plain.x), np.asarray(plain.y), strict=True):
        assert (windows == [*x, y[-1]]).all(1).any()


@pytest.mark.parametrize(("share", "moved"), [(0.0, 0), (0.02, 2), (0.25, 8), (1.0, 32)])
def test_exactly_a_share_of_the_names_moves(share, moved):
    task = stream(f"share={share}")
    data = task.load()
    names = task.following(jnp.arange(32), jax.random.key(0), jnp.int32(1), data)
    assert int((names != jnp.arange(32)).sum()) == moved


def test_windows_begin_anywhere():
    task = stream()
    data = task.load()
    starts = jnp.arange(len(data.tokens))
    numbered = type(data)(starts, data.alphabet, data.counts)
    batch = task.sample(starts, jax.random.key(0), 20_000, jnp.int32(0), numbered)
    first = np.asarray(batch.x[:, 0])
    assert first.min() >= 0
    assert np.asarray(batch.y).max() <= len(starts) - 1
    assert stats.kstest(first / (len(starts) - task.positions), "uniform").pvalue > 1e-3
    # The evaluation runs through the text at even distances.
    state = task.init(jax.random.key(0), numbered)
    shown = np.asarray(task.fixed(state._replace(current=starts), jnp.int32(0), 100, numbered).x[:, 0])
    assert len(set(np.diff(shown))) == 1
    assert shown[-1] > 0.98 * len(starts)


def test_shares_of_a_markov_source():
    np.testing.assert_allclose(markov.shares(4), np.array([8, 4, 2, 1]) / 15)
    assert stats.entropy(markov.shares(4), base=2) == pytest.approx(1.64, abs=0.005)
    assert stats.entropy(markov.shares(4)) == pytest.approx(1.137, abs=0.0005)


def test_the_markov_text_has_the_stated_optimum():
    text = markov.text(length=60_000, vocabulary=8)
    tokens = np.asarray(text.tokens)
    history = tokens[:-2] * 8 + tokens[1:-1]
    counts = np.zeros((64, 8))
    np.add.at(counts, (history, tokens[2:]), 1)
    assert ((counts > 0).sum(1) <= 4).all()
    assert counts.max(1).sum() / counts.sum() == pytest.approx(8 / 15, abs=0.01)
    ranked = np.sort(counts, axis=1)[:, ::-1][:, :4]
    assert stats.chisquare(ranked.sum(0), markov.shares(4) * counts.sum()).pvalue > 1e-3
    assert text.majority == np.bincount(tokens).max() / 60_000
    np.testing.assert_array_equal(tokens, markov.text(60_000, 8).tokens)


def test_a_file_of_the_users(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("abcab" * 20)
    task = stream(f"data='{path}', positions=5")
    data = task.load()
    assert data.alphabet == ("a", "b", "c")
    assert task.problem(data).classes == 3
    assert task.problem(data).chance == pytest.approx(0.4)
    with pytest.raises(UserError, match=r"positions \+ 1 = 101 tokens are needed, .* has 100"):
        stream(f"data='{path}', positions=100").load()


def test_an_unknown_text_is_refused():
    with pytest.raises(UserError, match=r"unknown text 'marko'\. Did you mean 'markov'"):
        stream("data=marko").load()


def test_networks_of_another_kind_are_refused():
    def begin(task, network):
        config = build_one(task, tasks)
        method = Method(build_one(network, networks), build_one("adam", optimizers), ())
        return start(config, method, jnp.int32(0), config.load())

    with pytest.raises(UserError, match="token_permutation needs a network with a prediction at every position"):
        begin("token_permutation", "mlp(8)")
    with pytest.raises(UserError, match="label_reset needs a network with one prediction an input"):
        begin("label_reset(examples_used=200, pool=4)", "transformer(8, 1, heads=2)")
