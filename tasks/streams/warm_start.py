"""A share of the data first, then all of it: does the start cost generalisation?

Task 0 has round(share * n) random examples, of whose labels the share `noise` is wrong; the following tasks have true
labels and more examples, in equal steps, the last task all n. With num_tasks = 2 that is a warm start: with
num_tasks = 1 / share, chunks of equal size that are kept.

The question is the generalisation gap: the test score after the last task, less that of a network which began with the
last task (the same run with the mitigation `full_reset`, or a stream of one task with share = 1). Hold out examples.

Source: Ash and Adams 2020, arXiv:1910.08475 (half, then all, or 1,000 more at a time, each to a training accuracy of
99 %); with noise Lee et al. 2024, arXiv:2406.02596 (a tenth with half of its labels wrong, then all, 100 epochs each);
in many chunks Lee et al. 2023, arXiv:2306.10711 (100) and Shin et al. 2024, arXiv:2410.23495 (50, each to 99.9 %).
Deviation: where these train without a limit there is one here, of 350 epochs; a run that takes them all has not got
there (`updates_taken`). Lee et al. 2024 warm up the learning rate in the first tenth of a task, to what shape after it
is not known to us: optimizer `adam(1e-3)`, mitigations `lr_schedule(constant, warmup=0.1)+weight_decay(1e-3)`.

Optimum: that of the data, on held-out examples. Chance: the share of the largest class.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from plasticity.config import static, traced
from tasks.base import tasks
from tasks.data.sets import Images
from tasks.streams._chunks import ChunkTask

CIFAR = "examples_used=50000, held_out=10000, data=cifar10"


@tasks.register("warm_start")
class WarmStart(ChunkTask):
    """Classify by true labels: a share of the data first, perhaps with wrong labels, then all of it.

    Task 0 has round(share * n) random examples, of which the share `noise` has a wrong label. Each further task has
    equally many more, the last one all; their labels are true. What counts is the test score at the end, against that
    of a network that has seen the last task only.
    """

    reference: ClassVar[str] = "Ash and Adams 2020, arXiv:1910.08475; Lee et al. 2024, arXiv:2406.02596"
    protocols: ClassVar[dict[str, str]] = {
        "ash_adams": f"warm_start(0.5, epochs=350, stop_at=0.99, batch_size=128, {CIFAR})",
        "ash_adams_growth": f"warm_start(0.02, epochs=350, stop_at=0.99, num_tasks=50, batch_size=128, {CIFAR})",
        "dash": f"warm_start(0.02, epochs=350, stop_at=0.999, num_tasks=50, batch_size=128, {CIFAR})",
        "hare_tortoise": f"warm_start(0.1, noise=0.5, epochs=100, batch_size=256, {CIFAR})",
        "plastic": f"warm_start(0.01, steps=500, num_tasks=100, batch_size=128, {CIFAR})",
    }

    num_tasks: int = static(2, ge=1, unit="tasks", help="tasks in the stream: the start, and steps to all of the data")
    share: float = static(0.5, gt=0, le=1, positional=True, help="share of the examples in the first task")
    noise: float = traced(0.0, ge=0, le=1, help="share of wrong labels in the first task")

    def bounds(self, data: Images) -> list[tuple[int, int]]:
        steps = max(self.num_tasks - 1, 1)
        shares = [self.share + (1 - self.share) * task / steps for task in range(self.num_tasks)]
        return [(0, round(share * data.examples)) for share in shares]

    def wrong(self, index: jax.Array) -> Any:
        return jnp.where(index == 0, self.noise, 0.0)
