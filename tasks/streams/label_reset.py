"""Random labels, a share of which is drawn afresh at every switch.

At a switch exactly round(eps · n) distinct examples, chosen uniformly, get a fresh label, uniform over the C
classes (so a re-drawn label stays the same with probability 1/C, and (1 - 1/C) · eps of all labels change in
expectation).

Source: memorisation of random labels as the test of trainability, Lyle et al. 2023 (arXiv:2303.01486); the
share eps, as the dial of abruptness, Lyle et al. 2024, "Disentangling the causes of plasticity loss"
(arXiv:2402.18762), figure 1.
Optimum: accuracy 1 (any labelling of distinct images can be memorised). Chance: 1/C.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from plasticity.config import static, traced
from plasticity.errors import UserError
from tasks.base import Batch, Problem, tasks
from tasks.data.sets import Images
from tasks.examples import ExampleTask


@tasks.register("label_reset")
class LabelReset(ExampleTask):
    """Memorise random labels, a fraction `eps` of which is re-drawn at every switch.

    At a switch exactly round(eps · n) distinct examples get a fresh label, uniform over the C classes. The
    optimum is accuracy 1, chance is 1/C.

    With fixed `steps`, a smaller eps also means less change in total. To vary the abruptness at a matched
    total change, shorten the tasks in proportion: eps of the labels every eps · steps updates.
    `LabelReset.matched(eps, steps, num_tasks)` is that config.
    """

    reference: ClassVar[str] = "Lyle et al. 2024, arXiv:2402.18762, section 3.1 and figure 1"
    kind = "classification"
    generalizes: ClassVar[bool] = False
    score_label: ClassVar[str] = "accuracy"
    levels: ClassVar[str] = "chance 1 / classes; optimum 1"

    eps: float = traced(1.0, ge=0, le=1, positional=True, help="share of the labels re-drawn at a switch")
    first_true: bool = static(False, help="begin with the true labels instead of random ones")

    @classmethod
    def matched(cls, eps: float, steps: int, num_tasks: int, **others: Any) -> LabelReset:
        """The config of share `eps` whose total change matches `num_tasks` tasks of `steps` updates at eps 1.

        Tasks of eps · steps updates, and num_tasks / eps of them: the number of updates and the rate of
        change (labels re-drawn per update) are those of eps = 1. (As the first task begins with no switch,
        the totals of re-drawn labels differ by (1 - eps) · n, less than one task's.) Raises `UserError` if
        eps · steps < 1.
        """
        length = round(eps * steps)
        if length < 1:
            raise UserError(f"label_reset: eps * steps must be at least 1 update, got {eps} * {steps}")
        values: dict[str, Any] = {"eps": eps, "steps": length, "num_tasks": round(num_tasks * steps / length)}
        return cls(**values, **others)

    def problem(self, data: Images) -> Problem:
        return Problem("classification", data.classes, (0.0, 0.0), 1 / data.classes)

    def first(self, key: jax.Array, data: Images) -> jax.Array:
        """Labels, int32 `[examples]`."""
        if self.first_true:
            return data.labels[: data.examples]
        return jax.random.randint(key, (data.examples,), 0, data.classes)

    def following(self, context: jax.Array, key: jax.Array, index: jax.Array, data: Images) -> jax.Array:
        examples = data.examples
        key_which, key_label = jax.random.split(key)
        # A random rank per example, of which the lowest are re-drawn: the count is exact though eps is
        # traced.
        rank = jax.random.permutation(key_which, examples)
        fresh = jax.random.randint(key_label, (examples,), 0, data.classes)
        return jnp.where(rank < jnp.round(self.eps * examples), fresh, context)

    def examples(self, context: jax.Array, indices: jax.Array, data: Images) -> Batch:
        return Batch(data.inputs(indices), context[indices])
