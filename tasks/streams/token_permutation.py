"""Next-token prediction in a text whose tokens change their names at every switch.

A batch is `batch_size` random windows of `positions` tokens, the target at each position is the token that follows it.
At a switch a cycle over k = round(share * V) random tokens (at least 2 if share > 0) is applied to the names: the
language stays, its letters are swapped. A network that has kept its plasticity learns each version as fast as the
first; what can be kept is the structure, what must be learned anew is which token is which.

Text: `markov`, a random source of order 2 (`tasks.data.markov`); `python_docs`, the language reference that every
Python carries; or a file of the user's, utf-8, its characters the tokens. Chance: the share of the most frequent token.
Optimum: that of the text; for `markov` 8/15 (.533) at positions from the second on, with an entropy of 1.137 nats.

Source: character permutations of a text as a plasticity stream e.g. in SNR (Farias & Jozefiak 2024, arXiv:2410.20098:
permuted Shakespeare) and FIRE; sizes and the Markov source are this suite's.
"""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp

from plasticity.config import static, traced
from plasticity.errors import UserError
from tasks.base import Batch, Problem, State, Task, tasks
from tasks.data import load_text
from tasks.data.sets import Text
from tasks.streams._renaming import cycle


@tasks.register("token_permutation")
class TokenPermutation(Task):
    """Predict the next token of a text whose tokens swap their names at every switch; for sequence models.

    A share of the tokens takes part in each swap. Windows are drawn at random from the text. The networks are those
    that predict at every position: transformer and linear_recurrence.
    """

    reference: ClassVar[str] = "Farias & Jozefiak 2024, arXiv:2410.20098 (permuted text); the source is this suite's"
    kind = "classification"
    sequence: ClassVar[bool] = True
    score_label: ClassVar[str] = "next-token accuracy"
    levels: ClassVar[str] = "chance: share of the most frequent token; optimum of markov 8/15"

    share: float = traced(1.0, ge=0, le=1, positional=True, help="share of the tokens renamed at a switch")
    data: str = static("markov", help="markov, python_docs, tiny_shakespeare, or the path of a text file")
    positions: int = static(32, ge=2, unit="tokens", help="length of a window")
    batch_size: int = static(32, ge=1, unit="windows", help="windows per update")
    vocabulary: int = static(64, ge=2, unit="tokens", help="most tokens of a file: the rarest share the last")

    def load(self) -> Text:
        data = load_text(self.data, vocabulary=self.vocabulary)
        self.check(data)
        return data

    def check(self, data: Text) -> None:
        """Raise `UserError` if the text is shorter than a window and what follows it, or has one token."""
        if len(data.tokens) < self.positions + 1:
            raise UserError(
                f"{self.name}: positions + 1 = {self.positions + 1} tokens are needed, {self.data} has "
                f"{len(data.tokens)}"
            )
        if data.vocabulary < 2:
            raise UserError(f"{self.name}: at least 2 different tokens are needed, {self.data} has {data.vocabulary}")

    def problem(self, data: Text) -> Problem:
        return Problem("classification", data.vocabulary, (0.0, 0.0), data.majority)

    def example(self, data: Text) -> jax.Array:
        return data.tokens[: self.positions][None]

    def first(self, key: jax.Array, data: Text) -> jax.Array:
        """The new name of each token, int32 `[vocabulary]`."""
        return jnp.arange(data.vocabulary, dtype=jnp.int32)

    def following(self, context: jax.Array, key: jax.Array, index: jax.Array, data: Text) -> jax.Array:
        return cycle(key, data.vocabulary, self.share)[context]

    def _windows(self, context: jax.Array, starts: jax.Array, data: Text) -> Batch:
        window = context[data.tokens[starts[:, None] + jnp.arange(self.positions + 1)]]
        return Batch(window[:, :-1], window[:, 1:])

    def sample(self, context: jax.Array, key: jax.Array, count: int, index: jax.Array, data: Text) -> Batch:
        starts = jax.random.randint(key, (count,), 0, len(data.tokens) - self.positions)
        return self._windows(context, starts, data)

    def fixed(self, state: State, index: jax.Array, count: int, data: Text) -> Batch:
        """Windows at even distances through the text."""
        most = len(data.tokens) - self.positions
        count = min(count, most)
        return self._windows(state.current, jnp.arange(count) * (most // count), data)
