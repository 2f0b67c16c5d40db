"""Every task stream at a small size, by default and with each of its choices; a new member is picked up with no edit.

A member that cannot be small by the sizes below alone has a line in `FIELDS`.
"""

import dataclasses

from plasticity.spec import build_one
from tasks.base import Task, tasks
from tasks.examples import ExampleTask

TASKS = 5
SIZES = f"steps=12, num_tasks={TASKS}, batch_size=10"
#: Labels of all classes, and fewer images than a grey level can number.
IMAGES = "examples_used=200, pool=4"
HELD_OUT = 50

#: Further fields of a member.
FIELDS: dict[str, str] = {
    # The second task is the first with other targets.
    "offset_regression": "pretrain=1",
}

#: Further variants of a member, beside one for each value of each of its choices.
VARIANTS: dict[str, list[str]] = {
    "input_permutation": ["relative=original, bank=3"],
    "noisy_chunks": ["cumulative=true"],
    "class_incremental": ["masked=true"],
    "warm_start": ["epochs=3", "epochs=3, stop_at=0.9"],
}

#: Choices that only pass through to what another member tests.
PASSED_ON = {("composite", "what"), ("composite_growing", "what")}

#: Choices of several streams that have a test of their own.
COMMON = {"augment"}


def _small(name: str, variant: str = "") -> str:
    cls = tasks.get(name)
    parts = [SIZES, FIELDS.get(name, ""), variant]
    if issubclass(cls, ExampleTask):
        parts += [IMAGES, f"held_out={HELD_OUT}" if cls.generalizes else ""]
    return f"{name}({', '.join(part for part in parts if part)})"


def variants(name: str) -> list[str]:
    """Each value of each of a member's choices that is not the default, and the further ones."""
    chosen = [
        f"{f.name}={choice}"
        for f in dataclasses.fields(tasks.get(name))
        for choice in f.metadata.get("choices") or ()
        if choice != f.default and (name, f.name) not in PASSED_ON and f.name not in COMMON
    ]
    return chosen + VARIANTS.get(name, [])


def grid(kind: type[Task] = Task) -> dict[str, str]:
    """What a small member is called -> its text, for all members of a kind."""
    found = {}
    for name, cls in tasks.members().items():
        if issubclass(cls, kind):
            texts = {
                f"{name}({variant})" if variant else name: _small(name, variant) for variant in ["", *variants(name)]
            }
            # Some choices are another way to write the default.
            configs = {key: build_one(text, tasks) for key, text in texts.items()}
            found |= {key: text for key, text in texts.items() if key == name or configs[key] != configs[name]}
    return found
