"""Every task stream at a small size, by default and with each of its choices; a new member is picked up with no edit.

A member that cannot be small by the sizes below alone has a line in `FIELDS`.
"""

import dataclasses

from tasks.base import Task, tasks
from tasks.examples import ExampleTask

TASKS = 5
SIZES = f"steps=12, num_tasks={TASKS}, batch_size=10"
#: Labels of all classes, and fewer images than a grey level can number.
IMAGES = "examples_used=200, pool=4"
HELD_OUT = 50

#: Further fields of a member, by its name; and of one of its choices, by name and choice.
FIELDS: dict[str | tuple[str, str], str] = {
    # The second task is the first with other targets.
    "offset_regression": "pretrain=1",
}


def _small(name: str, choice: str = "") -> str:
    cls = tasks.get(name)
    parts = [SIZES, FIELDS.get(name, ""), choice, FIELDS.get((name, choice), "")]
    if issubclass(cls, ExampleTask):
        parts += [IMAGES, f"held_out={HELD_OUT}" if cls.generalizes else ""]
    return f"{name}({', '.join(part for part in parts if part)})"


def choices(cls: type[Task]) -> list[str]:
    """Each value of each of a member's choices that is not the default."""
    return [
        f"{f.name}={choice}"
        for f in dataclasses.fields(cls)
        for choice in f.metadata.get("choices") or ()
        if choice != f.default
    ]


def grid(kind: type[Task] = Task) -> dict[str, str]:
    """What a small member is called -> its text, for all members of a kind."""
    found = {}
    for name, cls in tasks.members().items():
        if issubclass(cls, kind):
            found[name] = _small(name)
            found |= {f"{name}({choice})": _small(name, choice) for choice in choices(cls)}
    return found
