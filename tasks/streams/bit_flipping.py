"""Slowly changing regression: most input bits stand still for a task, and some flip at each switch.

An input is `inputs` bits, 0 or 1. The first `flipping` of them are constant within a task; the others are drawn for
each example. At a switch one of the constant bits, chosen at random, flips (flip=one), or all are drawn anew
(flip=all). The target is a frozen random network of `features` linear threshold units,

    y = b + sum_i v_i [w_i . x + b_i >= beta (inputs + 1) - S_i]

with every weight and bias +1 or -1 at random, and S_i the number of -1 among unit i's weights and bias: a unit fires
where at least a share beta of its inputs, the bias among them, agree with its weights. The target never changes: what
a small network can fit of it changes with the constant bits.

Source: Dohare et al. 2021, arXiv:2108.06325; Dohare et al. 2024, Nature 632 (there "slowly changing regression"), with
a network of one hidden layer of 5 units, batches of 1, a switch every 10,000 examples, 20 inputs, 15 constant bits, 100
features, beta .7. Their published code differs from this: its S_i is (inputs - sum of w_i + b_i) / 2, off by 1/2, and
its default draws all constant bits anew.

As only the drawn bits vary within a task, the targets of all their combinations are a table, made at the switch: a step
costs a look-up. Chance: explained variance 0. Optimum: 1 for a network with units enough; the error of the best
network of 5 units is not known.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.config import static, traced
from plasticity.errors import UserError
from tasks.base import Batch, Problem, State, Task, tasks

#: The table of targets has 2^drawn entries.
MOST_DRAWN = 12


class Bits(NamedTuple):
    """into: `[inputs + 1, features]`, biases last; out: `[features + 1]`, bias last; constant: `[flipping]`;
    targets: `[2^drawn]`."""

    into: jax.Array
    out: jax.Array
    constant: jax.Array
    targets: jax.Array


@tasks.register("bit_flipping")
class BitFlipping(Task):
    """Slowly changing regression: predict a frozen random network of threshold units from bits, some of which flip.

    Of `inputs` bits the first `flipping` are constant within a task, and one of them (or all) changes at a switch; the
    others are drawn for each example. The online score is the explained variance over the task; the published error is
    twice the online loss.
    """

    reference: ClassVar[str] = "Dohare et al. 2024, Nature 632; Dohare et al. 2021, arXiv:2108.06325"
    kind = "regression"
    pooled_score: ClassVar[bool] = True
    score_label: ClassVar[str] = "explained variance"
    levels: ClassVar[str] = "chance 0; optimum 1, out of reach of a network of 5 units"
    protocols: ClassVar[dict[str, str]] = {
        "dohare2024": "bit_flipping(steps=10000, num_tasks=100, batch_size=1)",
        "dohare2024_code": "bit_flipping(steps=10000, num_tasks=1000, batch_size=1, flip=all)",
    }

    steps: int = static(10_000, ge=1, unit="updates", help="updates per task")
    num_tasks: int = static(100, ge=1, unit="tasks", help="tasks in the stream")
    batch_size: int = static(1, ge=1, unit="examples", help="examples per update")
    inputs: int = static(20, ge=2, unit="bits", help="bits of an input")
    flipping: int = static(15, ge=1, unit="bits", help="of these, constant within a task")
    flip: str = static("one", choices=("one", "all"), help="one: one constant bit flips; all: all are drawn anew")
    features: int = static(100, ge=1, unit="units", help="threshold units of the target network")
    beta: float = traced(0.7, ge=0, le=1, help="share of agreeing inputs from which a threshold unit fires")

    def validate(self) -> None:
        drawn = self.inputs - self.flipping
        if not 1 <= drawn <= MOST_DRAWN:
            raise UserError(
                f"{self.name}: inputs - flipping, the bits drawn for each example, must be from 1 to {MOST_DRAWN}, "
                f"got {self.inputs} - {self.flipping} = {drawn}"
            )

    @property
    def _combinations(self) -> int:
        return 1 << (self.inputs - self.flipping)

    def problem(self, data: Any) -> Problem:
        """`target_range` is where all threshold units have one sign and fire; targets seen are far within."""
        reach = float(self.features + 1)
        return Problem("regression", 0, (-reach, reach), 0.0)

    def example(self, data: Any) -> jax.Array:
        return jnp.zeros((1, self.inputs))

    def first(self, key: jax.Array, data: Any) -> Bits:
        key_in, key_out, key_bits = jax.random.split(key, 3)
        into = jax.random.rademacher(key_in, (self.inputs + 1, self.features), jnp.float32)
        out = jax.random.rademacher(key_out, (self.features + 1,), jnp.float32)
        constant = jax.random.bernoulli(key_bits, 0.5, (self.flipping,)).astype(jnp.float32)
        return self._tabulated(into, out, constant)

    def following(self, context: Bits, key: jax.Array, index: jax.Array, data: Any) -> Bits:
        if self.flip == "all":
            constant = jax.random.bernoulli(key, 0.5, (self.flipping,)).astype(jnp.float32)
        else:
            which = jax.random.randint(key, (), 0, self.flipping)
            constant = context.constant.at[which].set(1 - context.constant[which])
        return self._tabulated(context.into, context.out, constant)

    def _tabulated(self, into: jax.Array, out: jax.Array, constant: jax.Array) -> Bits:
        x = self._inputs(constant, jnp.arange(self._combinations))
        agreeing = x @ into[:-1] + into[-1] + jnp.sum(into < 0, axis=0)
        # Whole numbers against a share of one: a hair below, so that .7 * 20 is reached by 14.
        fires = agreeing >= self.beta * (self.inputs + 1) - 1e-4
        return Bits(into, out, constant, fires @ out[:-1] + out[-1])

    def _inputs(self, constant: jax.Array, codes: jax.Array) -> jax.Array:
        """Inputs `[batch, inputs]` whose drawn bits spell the codes `[batch]`."""
        drawn = (codes[:, None] >> jnp.arange(self.inputs - self.flipping)) & 1
        constant = jnp.broadcast_to(constant, (len(codes), self.flipping))
        return jnp.concatenate([constant, drawn.astype(jnp.float32)], axis=1)

    def _examples(self, context: Bits, codes: jax.Array) -> Batch:
        return Batch(self._inputs(context.constant, codes), context.targets[codes])

    def sample(self, context: Bits, key: jax.Array, count: int, index: jax.Array, data: Any) -> Batch:
        # The lowest bits of a word: uniform, and cheaper than a bounded draw.
        codes = jax.random.bits(key, (count,)) & (self._combinations - 1)
        return self._examples(context, codes.astype(jnp.int32))

    def fixed(self, state: State, index: jax.Array, count: int, data: Any) -> Batch:
        """All combinations of the drawn bits, as far as they are asked for: the mean over them is exact."""
        return self._examples(state.current, jnp.arange(min(count, self._combinations)))
