"""Tasks of many classes and tasks of few in turn, each of classes that were never seen before.

Tasks 0, 2, 4, ... have `many` classes, tasks 1, 3, 5, ... `few`: the next ones of an order that is drawn from the key,
under their true labels. A network that has given up its features in an easy task lacks them in the hard one after it.

Source: 5+1 CIFAR, Kumar et al. 2023, arXiv:2308.11958: many = 5, few = 1 on CIFAR-100, batches of 16, 625 updates a
task, of which their code uses 31. The defaults here fit data of 10 classes.
Optimum: that of the data. Chance: 1 / classes of the task, recorded as baseline_chance; with one class it is 1, so that
only the tasks of many classes say something.
"""

from __future__ import annotations

from typing import Any, ClassVar

from plasticity.config import static
from tasks.base import tasks
from tasks.data.sets import Images
from tasks.streams._classes import ClassTask


@tasks.register("five_plus_one")
class FivePlusOne(ClassTask):
    """Classify by true labels; tasks of many and of few classes in turn, all of them new.

    5+1 CIFAR is many = 5, few = 1 on CIFAR-100. Chance is 1 / classes of the task.
    """

    reference: ClassVar[str] = "Kumar, Marklund and Van Roy 2023, arXiv:2308.11958"
    levels: ClassVar[str] = "chance 1 / classes of the task (baseline_chance); optimum: that of the data"
    protocols: ClassVar[dict[str, str]] = {
        "l2_init": "five_plus_one(many=5, few=1, steps=625, num_tasks=31, batch_size=16, examples_used=50000, "
        "held_out=10000, data=cifar100)",
    }

    num_tasks: int = static(6, ge=1, unit="tasks", help="tasks in the stream")
    many: int = static(2, ge=1, unit="classes", help="classes of tasks 0, 2, 4, ...")
    few: int = static(1, ge=1, unit="classes", help="classes of tasks 1, 3, 5, ...")

    def window(self, index: Any, data: Images) -> tuple[Any, Any]:
        odd = index % 2
        return index // 2 * (self.many + self.few) + odd * self.many, self.many + odd * (self.few - self.many)
