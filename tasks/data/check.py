"""Does a task fit its data? Asked before any compute is spent.

`for_task(task)` loads what a task config names and checks the two against each other; `check(task, data)`
does the latter for data from elsewhere. Ranges of single fields are checked by the config itself.
"""

from __future__ import annotations

from plasticity.errors import UserError
from tasks.base import Data, Task
from tasks.data.load import load


def for_task(task: Task) -> Data:
    """The data that a task config names. Raises `UserError` if there are none or they do not fit the task."""
    data = load(task.data, task.examples_used, task.pool)
    check(task, data)
    return data


def check(task: Task, data: Data) -> None:
    """Raise `UserError` if the task cannot be run on the data."""
    examples = data.labels.shape[0]
    if data.images.shape[0] != examples:
        raise UserError(f"{task.name}: the data have {data.images.shape[0]} images but {examples} labels")
    if examples != task.examples_used:
        raise UserError(f"{task.name}: examples_used is {task.examples_used}, the data have {examples} examples")
    if examples < 2:
        raise UserError(f"{task.name}: at least 2 examples are needed, examples_used is {examples}")
    if task.kind == "classification" and data.classes < 2:
        raise UserError(f"{task.name}: at least 2 classes are needed, {task.data} has {data.classes}")
