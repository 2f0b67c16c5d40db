"""True labels, and images whose pixels change places at every switch.

    x_t = x_{t-1} ∘ c_t        relative=current: the places of the last task are the start
    x_t = x_original ∘ c_t     relative=original: those of the data are

c_t is a cycle over k = round(share * places) places (at least 2 for a share above 0), drawn at random and in random
order: each of the k gets another value. relative=current: a switch moves exactly k values, and small shares add up from
task to task. relative=original: every task has exactly k values out of place, so that a switch moves up to 2 k.

With `bank` = b > 0 there are b orders only, drawn at the start, which return in turn: task t has order t mod b, each
relative to the original. Order 0, with which every stream begins, is that of the data, or with `first_permuted` one
drawn like the others (relative=current: of all places, whatever the share).

To a dense network each task is as hard as the first. A convolutional network finds images of another kind.

Source: permuted MNIST, Goodfellow et al. 2013, arXiv:1312.6211; online (each image seen once a task), Dohare et al.
2024, Nature 632. Deviation: they draw any permutation, which leaves one place as it was on average; a cycle leaves
none.
Optimum: that of the data. Chance: the share of the largest class.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.config import static, traced
from plasticity.errors import UserError
from tasks.base import Batch, Problem, tasks
from tasks.data.sets import Images
from tasks.examples import ExampleTask
from tasks.streams._pixels import WHAT, arranged, places
from tasks.streams._renaming import cycle


class Order(NamedTuple):
    """order: which value comes to each place, int32 `[places]`; seed: of the bank, uint32, or () without one."""

    order: jax.Array
    seed: Any = ()


@tasks.register("input_permutation")
class InputPermutation(ExampleTask):
    """Classify by true labels while pixels change places at every switch.

    At a switch a cycle over k = round(share * places) random places is applied: to the order of the last task, or to
    that of the data. With a bank of b orders these return in turn. The optimum is that of the data, chance the share of
    its largest class.
    """

    reference: ClassVar[str] = "Goodfellow et al. 2013, arXiv:1312.6211; Dohare et al. 2024, Nature 632"
    kind = "classification"
    moves_inputs: ClassVar[bool] = True
    score_label: ClassVar[str] = "accuracy"
    levels: ClassVar[str] = "chance: share of the largest class; optimum: that of the data"
    protocols: ClassVar[dict[str, str]] = {
        # Each image once a task.
        "nature": "input_permutation(first_permuted=true, steps=60000, num_tasks=800, batch_size=1, "
        "examples_used=60000, data=mnist)",
        # 10,000 images a task, other ones each time; the first task is unpermuted.
        "l2_init": "input_permutation(relative=original, steps=625, num_tasks=500, batch_size=16, "
        "examples_used=60000, data=mnist)",
        "upgd": "input_permutation(relative=original, first_permuted=true, steps=5000, num_tasks=200, batch_size=1, "
        "examples_used=60000, data=mnist)",
        "swr": "input_permutation(first_permuted=true, steps=2000, num_tasks=1000, batch_size=30, "
        "examples_used=60000, data=mnist)",
    }

    share: float = traced(1.0, ge=0, le=1, positional=True, help="share of the places whose values move at a switch")
    what: str = static("full", choices=WHAT, help="what moves: all values, positions of all channels alike, or rows")
    relative: str = static("current", choices=("current", "original"), help="the order from which values move")
    bank: int = static(0, ge=0, unit="orders", help="orders that return in turn; 0 = a new one at each switch")
    first_permuted: bool = static(False, help="begin with a random order instead of that of the data")

    def validate(self) -> None:
        super().validate()
        if self.bank and self.relative != "original":
            raise UserError(
                f"{self.name}: bank={self.bank} needs relative=original, got relative={self.relative}: "
                "orders that return have a fixed start"
            )

    def problem(self, data: Images) -> Problem:
        return Problem("classification", data.classes, (0.0, 0.0), data.majority)

    def _drawn(self, key: jax.Array, data: Images, share: jax.Array | float) -> jax.Array:
        return cycle(key, places(self.what, data), share)

    def _of_bank(self, seed: jax.Array, number: jax.Array, data: Images) -> jax.Array:
        drawn = self._drawn(jax.random.fold_in(jax.random.wrap_key_data(seed), number), data, self.share)
        return drawn if self.first_permuted else jnp.where(number == 0, jnp.arange(len(drawn)), drawn)

    def first(self, key: jax.Array, data: Images) -> Order:
        if self.bank:
            # Kept as a seed: an order is cheap to draw again, and a bank of them may be large.
            seed = jax.random.key_data(key)
            return Order(self._of_bank(seed, jnp.int32(0), data), seed)
        if self.first_permuted:
            return Order(self._drawn(key, data, self.share if self.relative == "original" else 1.0))
        return Order(jnp.arange(places(self.what, data), dtype=jnp.int32))

    def following(self, context: Order, key: jax.Array, index: jax.Array, data: Images) -> Order:
        if self.bank:
            return Order(self._of_bank(context.seed, index % self.bank, data), context.seed)
        drawn = self._drawn(key, data, self.share)
        return Order(context.order[drawn] if self.relative == "current" else drawn)

    def examples(self, context: Order, indices: jax.Array, data: Images) -> Batch:
        return Batch(arranged(self.what, data.inputs(indices), context.order), data.labels[indices])
