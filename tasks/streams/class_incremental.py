"""More classes from task to task: the classes so far stay, and new ones join at every switch.

Task t = 0, 1, ... has the first (t + 1) * increment classes of an order that is drawn from the key, under their true
labels. The network has an output for each class of the data from the start.

Source: class-incremental CIFAR-100 of Dohare et al. 2024, Nature 632: 5 new classes every 200 epochs, 450 training
examples of each class, images flipped, shifted and turned, outputs of classes that are not there yet left out.
Deviation: no validation set picks the network that the next classes join. With a vision transformer Hernandez-Garcia et
al. 2025 (CoLLAs) have 100 epochs for each 5 classes; their batch is not known to us, so it is that of the former.

The learning rate of Dohare et al. starts anew with each task and is multiplied by .2 after 60, 120 and 160 epochs, the
decay of weights is coupled: optimizer `sgd(0.1, momentum=0.9)`, mitigations `lr_schedule(steps)+l2(5e-4)`.

Optimum: that of the data. Chance: 1 / classes so far, recorded as baseline_chance.
"""

from __future__ import annotations

from typing import Any, ClassVar

from plasticity.config import static
from plasticity.errors import UserError
from tasks.base import tasks
from tasks.data.sets import Images
from tasks.streams._classes import ClassTask

CIFAR = (
    "masked=true, augment=flip_crop_rotate, per_class=450, num_tasks=20, batch_size=90, examples_used=50000, "
    "held_out=10000, data=cifar100"
)


@tasks.register("class_incremental")
class ClassIncremental(ClassTask):
    """Classify by true labels; at every switch new classes join those that are there.

    Task t has the first (t + 1) * increment classes of a random order, and equally many examples of each. Chance is
    1 / classes so far.
    """

    reference: ClassVar[str] = "Dohare et al. 2024, Nature 632"
    levels: ClassVar[str] = "chance 1 / classes so far (baseline_chance); optimum: that of the data"
    protocols: ClassVar[dict[str, str]] = {
        "nature": f"class_incremental(5, epochs=200, {CIFAR})",
        "swr": f"class_incremental(5, epochs=100, {CIFAR})",
    }

    num_tasks: int = static(5, ge=1, unit="tasks", help="tasks in the stream")
    increment: int = static(2, ge=1, unit="classes", positional=True, help="classes that join at each switch")

    def check(self, data: Images) -> None:
        if data.classes % self.increment:
            divisors = [str(d) for d in range(1, data.classes + 1) if data.classes % d == 0]
            raise UserError(
                f"{self.name}: increment must divide the {data.classes} classes of {self.data}, got {self.increment}; "
                f"allowed: {', '.join(divisors)}"
            )
        super().check(data)

    def window(self, index: Any, data: Images) -> tuple[Any, Any]:
        return 0, (index + 1) * self.increment
