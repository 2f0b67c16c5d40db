"""Every registered task stream: on which of them does a plain network lose plasticity, and does the usual pair help?

    python -m sweeps run all_tasks --executor processes && python -m analysis report runs/all_tasks-laptop

The list is not written down here: whatever is in `tasks/streams` takes part, so a new stream is compared with all
others by running the study again. Beside no mitigation stand layer norm with L2 and the network that is re-initialised
at every switch; loss of plasticity is the difference to the latter, paired by seed. At smoke scale every stream runs
with two networks each, to show that it can; its numbers mean nothing.

Sizes are this suite's: what the sources publish is in `python -m tasks describe NAME`.
"""

from __future__ import annotations

from sweeps.grid import Grid
from sweeps.study import FRESH, Scale, Study
from tasks.base import Task, tasks
from tasks.examples import ExampleTask
from tasks.measure import Measure

PAIR = "layer_norm+l2(0.001)"
#: Two networks for each kind of input.
IMAGES = ("mlp(64)", "cnn(32, channels=8)")
TOKENS = ("transformer(32, 1)", "linear_recurrence(32, 1)")
ROWS = ("mlp(16, 1)", "mlp(16, 2)")
#: Where the sizes below do not do: batches of one example and so longer tasks, as published; and few texts in a batch,
#: each of which has a prediction at every position.
OWN = {
    "bit_flipping": "steps=2000, num_tasks=40",
    "natural_stream": "steps=1500, num_tasks=40",
    "token_permutation": "steps=300, batch_size=10",
}


def networks(name: str) -> tuple[str, str]:
    """Two networks that can learn a stream."""
    cls = tasks.get(name)
    if cls.sequence:
        return TOKENS
    return IMAGES if issubclass(cls, ExampleTask) else ROWS


def text(name: str, cls: type[Task], sizes: str, images: str, held_out: int, rows: str) -> str:
    """A stream's spec text. sizes, images: fields of all, and of those on images; held_out: examples of streams where
    what was learned says something about other images; rows: in place of sizes elsewhere."""
    if issubclass(cls, ExampleTask):
        tested = f", held_out={held_out}" if held_out and cls.generalizes else ""
        return f"{name}({sizes}, {images}{tested})"
    return f"{name}({rows or OWN.get(name, sizes)})"


def grids(
    mitigations: tuple[str, ...],
    seeds: int,
    count: int,
    measure: Measure,
    sizes: str,
    images: str,
    held_out: int = 0,
    rows: str = "",
) -> Grid:
    """Each stream with the first `count` of its networks."""
    optimizers = ("adam(1e-3)",)
    found = [
        Grid(
            {name: text(name, cls, sizes, images, held_out, rows)},
            mitigations,
            networks(name)[:count],
            optimizers,
            seeds,
            measure,
        )
        for name, cls in tasks.members().items()
    ]
    return sum(found[1:], found[0])


def smoke() -> Scale:
    sizes = "steps=8, num_tasks=2, batch_size=10"
    lean = Measure(points="end", ranks_every=0)  # ranks are half of the time to compile
    grid = grids(("none", "l2(0.001)"), 1, 2, lean, sizes, "examples_used=200, pool=4", rows=sizes)
    return Scale(grid, "a few minutes, nearly all of it compilation; its numbers mean nothing")


def laptop() -> Scale:
    sizes = "steps=300, batch_size=50"
    grid = grids(("none", PAIR, FRESH), 5, 1, Measure(points="end"), sizes, "examples_used=1000, pool=2", 500)
    return Scale(grid, "9 minutes on 2 cores")


STUDY = Study(
    name="all_tasks",
    title="On which streams does a network lose plasticity?",
    description=(
        "Every stream of the suite with no mitigation, with layer norm and L2, and with a network that is "
        "re-initialised at every switch. A score that falls below that of the fresh network is lost plasticity; one "
        "that stays above it is what can be kept from earlier tasks."
    ),
    scales={"smoke": smoke, "laptop": laptop},
    task_labels={name: name.replace("_", " ").capitalize() for name in tasks.members()},
    factors={"layer_norm": "layer norm", "l2(0.001)": "L2"},
    reference=FRESH,
)
