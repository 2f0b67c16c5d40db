"""Text from a random Markov source: a language whose entropy, and so the best possible prediction, is known.

The next token depends on the `order` tokens before it. After each of the `vocabulary^order` histories `branches` tokens
can follow, chosen at random, the j-th of them with a share proportional to 2^-j: for 4 branches 8/15, 4/15, 2/15, 1/15.
The best prediction is right in the share of the first branch, the entropy is that of the shares (1.64 bits for 4).
The source and the text come from fixed seeds: the same text everywhere.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tasks.data.sets import Text


def shares(branches: int) -> np.ndarray:
    """Probability of each branch, `[branches]`, falling."""
    weights = 0.5 ** np.arange(branches)
    return weights / weights.sum()


@lru_cache(maxsize=4)
def text(length: int = 200_000, vocabulary: int = 32, order: int = 2, branches: int = 4, seed: int = 0) -> Text:
    """A text of `length` tokens."""
    rng = np.random.default_rng(seed)
    # The first `branches` of a random ranking of the tokens, for each history.
    follows = rng.random((vocabulary**order, vocabulary)).argsort(axis=1)[:, :branches]
    chosen = rng.choice(branches, size=length, p=shares(branches))
    tokens = np.empty(length, np.int32)
    history, histories = 0, vocabulary**order
    for i, branch in enumerate(chosen):
        tokens[i] = follows[history, branch]
        history = (history * vocabulary + tokens[i]) % histories
    return Text.of(tokens, tuple(f"t{i}" for i in range(vocabulary)))
