"""Random labels, a share of which is drawn afresh at every switch.

At a switch exactly round(eps * n) distinct examples, chosen uniformly, get a new label:

- redraw=uniform: uniform over the C classes (so a label stays as it was with probability 1/C, and (1 - 1/C) * eps of
  all labels change in expectation). The first labels are uniform too.
- redraw=shuffle: those of the chosen examples, in random order, so that each class keeps its number of examples. The
  first labels are the true ones, shuffled.

How much changes, as eps is made small, depends on the budget:

- budget=switch: eps of the labels every `steps` updates: less change in total.
- budget=matched: eps of the labels every eps * steps updates, in num_tasks / eps tasks (to the nearest whole one): as
  many updates, and as many labels re-drawn per update, as at eps = 1. Such a config is written out when it is built:
  label_reset(0.1, steps=1000, num_tasks=20, budget=matched) is label_reset(0.1, steps=100, num_tasks=200). As the
  first task begins with no switch, totals of re-drawn labels differ by (1 - eps) * n, less than one task's.

Source: memorisation of random labels as the test of trainability, Lyle et al. 2023 (arXiv:2303.01486); the share eps,
as the dial of abruptness, Lyle et al. 2024, "Disentangling the causes of plasticity loss" (arXiv:2402.18762), figure 1;
200 re-drawings, Lyle et al. 2024, arXiv:2407.01800 (the batch sizes of these two are not known: 256 in the protocols is
this suite's); labels shuffled among 1,200 images, Kumar et al. 2023, arXiv:2308.11958.
Optimum: accuracy 1 (any labelling of distinct images can be memorised). Chance: 1/C; with redraw=shuffle the share of
the largest class.
"""

from __future__ import annotations

from typing import ClassVar

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

    At a switch exactly round(eps * n) distinct examples get a new label: uniform over the C classes, or, shuffled, that
    of another of them. The optimum is accuracy 1, chance is 1/C, or the share of the largest class.

    With budget=switch a smaller eps also means less change in total. With budget=matched tasks are shorter in
    proportion: eps of the labels every eps * steps updates.
    """

    reference: ClassVar[str] = "Lyle et al. 2024, arXiv:2402.18762, section 3.1 and figure 1"
    kind = "classification"
    generalizes: ClassVar[bool] = False
    score_label: ClassVar[str] = "accuracy"
    levels: ClassVar[str] = "chance 1 / classes, or with redraw=shuffle the share of the largest class; optimum 1"
    protocols: ClassVar[dict[str, str]] = {
        "lyle2024": "label_reset(steps=100000, num_tasks=40, batch_size=256, examples_used=50000, data=cifar10)",
        "nap": "label_reset(steps=100000, num_tasks=200, batch_size=256, examples_used=50000, data=cifar10)",
        "l2_init_mnist": "label_reset(redraw=shuffle, steps=30000, num_tasks=50, batch_size=16, examples_used=1200, "
        "data=mnist)",
        "l2_init_cifar10": "label_reset(redraw=shuffle, steps=30000, num_tasks=50, batch_size=16, examples_used=1200, "
        "data=cifar10)",
    }

    eps: float = traced(1.0, ge=0, le=1, positional=True, help="share of the labels re-drawn at a switch")
    first_true: bool = static(False, help="begin with the true labels instead of random ones")
    redraw: str = static(
        "uniform", choices=("uniform", "shuffle"), help="uniform: over the classes; shuffle: among the examples chosen"
    )
    budget: str = static(
        "switch", choices=("switch", "matched"), help="matched: eps * steps updates a task, num_tasks / eps tasks"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget == "matched":
            self._write_out()

    def _write_out(self) -> None:
        """Steps and tasks of the matched budget become those of this config, under the budget per switch."""
        exact = float(self.eps) * self.steps
        length = round(exact)
        if length < 1 or abs(exact - length) > 1e-6 * length:
            raise UserError(
                f"label_reset: with budget=matched, eps * steps must be a whole number of updates, "
                f"got {self.eps} * {self.steps} = {exact:g}"
            )
        written = {"steps": length, "num_tasks": round(self.num_tasks * self.steps / length), "budget": "switch"}
        for name, value in written.items():
            object.__setattr__(self, name, value)

    def problem(self, data: Images) -> Problem:
        chance = data.majority if self.redraw == "shuffle" else 1 / data.classes
        return Problem("classification", data.classes, (0.0, 0.0), chance)

    def first(self, key: jax.Array, data: Images) -> jax.Array:
        """Labels, int32 `[examples]`."""
        labels = data.labels[: data.examples]
        if self.first_true:
            return labels
        if self.redraw == "shuffle":
            return jax.random.permutation(key, labels)
        return jax.random.randint(key, (data.examples,), 0, data.classes)

    def following(self, context: jax.Array, key: jax.Array, index: jax.Array, data: Images) -> jax.Array:
        key_which, key_label = jax.random.split(key)
        return redrawn(context, key_which, key_label, self.eps, None if self.redraw == "shuffle" else data.classes)

    def examples(self, context: jax.Array, indices: jax.Array, data: Images) -> Batch:
        return Batch(data.inputs(indices), context[indices])


def redrawn(
    labels: jax.Array, key_which: jax.Array, key_label: jax.Array, eps: jax.Array | float, classes: int | None
) -> jax.Array:
    """`labels` of which exactly round(eps * n), chosen at random, are new: uniform, or, without classes, shuffled."""
    # A random rank per example, of which the lowest are re-drawn: the count is exact though eps is traced.
    rank = jax.random.permutation(key_which, len(labels))
    chosen = rank < jnp.round(eps * len(labels))
    if classes is not None:
        return jnp.where(chosen, jax.random.randint(key_label, labels.shape, 0, classes), labels)
    # The chosen in one random order give their labels to the chosen in another.
    one = jnp.argsort(rank)
    other = jnp.argsort(jnp.where(chosen, jax.random.uniform(key_label, labels.shape), 2.0))
    return jnp.where(chosen, labels.at[one].set(labels[other]), labels)
