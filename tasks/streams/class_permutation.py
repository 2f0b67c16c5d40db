"""True labels, renamed by a permutation of the classes that changes at every switch.

    y_t(x) = p_t(label(x)),   p_t = c_t ∘ p_{t-1},   p_0 = identity

- rename=random: c_t is a cycle over k classes drawn at random and in random order, k = round(share * C), but at least 2
  for any share above 0. Each of the k classes gets the name of another, so every switch changes exactly the labels of k
  classes. Deviation: the usual draw is a uniform permutation of all classes, which leaves one of them in place on
  average.
- rename=shift: c_t(y) = (y + 1) mod C, so that p_t(y) = (y + t) mod C: after C tasks the names return.

In contrast to `label_reset` the inputs of one class keep a common label, so that features learned earlier stay useful
and only the last layer must change. Source: the second of the two shifts under which Lyle et al. 2024
(arXiv:2402.18762) follow the units, figure 2; label-permuted streams, a new permutation every 2,500 examples, one
example an update, Elsayed and Mahmood 2024 (arXiv:2404.00781); the shift, there called output adaptation, Lee et al.
2023 (arXiv:2306.10711). Optimum: that of the data set. Chance: the share of the largest class.
"""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp

from plasticity.config import static, traced
from plasticity.errors import UserError
from tasks.augment import PictureTask
from tasks.base import Batch, Problem, tasks
from tasks.data.sets import Images
from tasks.streams._renaming import cycle


@tasks.register("class_permutation")
class ClassPermutation(PictureTask):
    """Classify by true labels whose class names are permuted at every switch.

    At a switch a cycle over k = round(share * C) random classes (at least 2 if share > 0) is applied to the labels:
    exactly these classes change their name. Or the names shift by one. The optimum is that of the data set, chance the
    share of its largest class.
    """

    reference: ClassVar[str] = "Lyle et al. 2024, arXiv:2402.18762, section 3.2 and figure 2"
    kind = "classification"
    score_label: ClassVar[str] = "accuracy"
    levels: ClassVar[str] = "chance: share of the largest class; optimum: that of the data"

    protocols: ClassVar[dict[str, str]] = {
        "upgd_cifar10": "class_permutation(steps=2500, num_tasks=400, batch_size=1, examples_used=50000, data=cifar10)",
        "plastic_output": "class_permutation(rename=shift, steps=500, num_tasks=100, batch_size=128, "
        "examples_used=50000, held_out=10000, data=cifar10)",
    }

    share: float = traced(1.0, ge=0, le=1, positional=True, help="share of the classes renamed at a switch")
    rename: str = static(
        "random", choices=("random", "shift"), help="random: by a cycle drawn anew; shift: y + 1 mod C"
    )

    def validate(self) -> None:
        super().validate()
        if self.rename == "shift" and isinstance(self.share, int | float) and self.share != 1:
            raise UserError(
                f"{self.name}: with rename=shift all classes are renamed; share must be 1, got {self.share}"
            )

    def problem(self, data: Images) -> Problem:
        return Problem("classification", data.classes, (0.0, 0.0), data.majority)

    def first(self, key: jax.Array, data: Images) -> jax.Array:
        """The new name of each class, int32 `[classes]`."""
        return jnp.arange(data.classes, dtype=jnp.int32)

    def following(self, context: jax.Array, key: jax.Array, index: jax.Array, data: Images) -> jax.Array:
        if self.rename == "shift":
            return (context + 1) % data.classes
        return cycle(key, data.classes, self.share)[context]

    def examples(self, context: jax.Array, indices: jax.Array, data: Images) -> Batch:
        return Batch(data.inputs(indices), context[data.labels[indices]])
