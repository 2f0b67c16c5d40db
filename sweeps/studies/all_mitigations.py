"""Every registered mitigation, alone and with layer norm, on random-label reset and on growing targets.

    python -m sweeps run all_mitigations --executor processes && python -m analysis report runs/all_mitigations-laptop

The list is not written down here: whatever is in `plasticity/mitigations` takes part on each task on which it can
stand, so a new mitigation is compared with all others by running the study again (finished runs are kept). The report
ranks them with intervals; its section "Mechanisms and cost" has online and end-of-task scores, the cost of an update,
and what each did to dead and linearised units, norm and rank.

What is ours: strengths and periods. A laptop run has three thousand updates, where the sources have hundreds of
thousands to millions. So `SCALED` replaces periods of a thousand updates and more by a hundred, a third of a task, and
gives L2 the strength that the study `factorial` has at this size; all others have their defaults. Nothing was chosen by
its result here, and nothing is tuned as its authors would: a member may well do better than its row says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from plasticity import spec
from plasticity.claims import AllOf, Claim, Contrast, Outcome
from plasticity.errors import UserError
from plasticity.mitigations import compose
from plasticity.mitigations.base import mitigations
from sweeps.grid import Grid
from sweeps.studies.factorial import NORM, SOURCE, TASKS, together
from sweeps.study import FRESH, Scale, Study
from tasks.base import tasks
from tasks.measure import Measure
from tasks.train import architecture_on

#: In place of the defaults, at this size.
SCALED: dict[str, str] = {
    "l2": "l2(5e-3)",
    "batch_renorm": "batch_renorm(warm_up=100)",
    "c_chain": "c_chain(mode=fixed)",  # the ratio's warm-up would be the whole run
    "cpr": "cpr(every=100)",
    "hare_tortoise": "hare_tortoise(0.99, every=100)",
    "redo": "redo(every=100)",
    "regrama": "regrama(every=100)",
    "selective_weight_reinit": "selective_weight_reinit(every=100)",
}
#: Not compared: `relu` is the network's own nonlinearity, the fresh network is the reference.
LEFT_OUT = ("relu", FRESH)
MARGIN = 0.05


def member(name: str) -> str:
    """The canonical spec text with which a mitigation takes part."""
    return spec.to_text(spec.build(SCALED.get(name, name), mitigations))


def fits(task_text: str, *members: str) -> bool:
    """Whether these mitigations can stand together on a task."""
    task = spec.build_one(task_text, tasks)
    try:
        architecture_on(task, compose.canonical(spec.build("+".join(members), mitigations)), task.load())
    except UserError:
        return False
    return True


def arms(task_text: str, names: list[str]) -> Iterator[str]:
    """The combinations on a task: none, each alone, each with layer norm, and the fresh network."""
    yield "none"
    for name in names:
        for members in ((member(name),), (NORM, member(name))):
            # What is a normalisation itself stands in the place of layer norm, not beside it.
            if (name != NORM or len(members) == 1) and fits(task_text, *members):
                yield spec.to_text(compose.canonical(spec.build("+".join(members), mitigations)))
    yield FRESH


@dataclass(frozen=True)
class Design:
    """The study at one scale. labels, targets: spec texts of the two tasks. late: tasks that count as late.

    names: mitigations that take part; empty for all.
    """

    labels: str
    targets: str
    network: str
    optimizer: str
    seeds: int
    late: int
    names: tuple[str, ...] = ()

    @property
    def tasks(self) -> dict[str, str]:
        return {"label_reset": self.labels, "target_drift": self.targets}

    @property
    def taking_part(self) -> list[str]:
        """Names of the mitigations that are compared."""
        return [name for name in mitigations.members() if name not in LEFT_OUT and name in (self.names or [name])]

    def grid(self) -> Grid:
        first, second = (
            Grid(
                {key: text},
                tuple(dict.fromkeys(arms(text, self.taking_part))),
                (self.network,),
                (self.optimizer,),
                self.seeds,
                Measure(points="end"),  # the report reads the ends of tasks; a program compiles faster
            )
            for key, text in self.tasks.items()
        )
        return first + second

    def claims(self) -> tuple[Claim, ...]:
        """C10, of every single mitigation: none is ahead of layer norm with L2 by more than a margin on labels."""
        pair = together(NORM, member("l2"))

        def ahead(name: str) -> Contrast:
            terms = (
                (1.0, Outcome("label_reset", member(name), last=self.late)),
                (-1.0, Outcome("label_reset", pair, last=self.late)),
            )
            words = f"{TASKS['label_reset']}: {name} alone minus layer norm + L2, late tasks"
            return Contrast(words, terms, "less", MARGIN)

        parts = tuple(ahead(name) for name in self.taking_part if fits(self.labels, member(name)))
        statement = f"No single mitigation is ahead of layer norm with L2 by more than {MARGIN}."
        return (Claim("C10 (all)", statement, SOURCE, AllOf(parts)),)

    def scale(self, cost: str) -> Scale:
        return Scale(self.grid(), cost, self.claims())


def smoke() -> Scale:
    """A few members of each kind: for CI, where compiling all of them would take too long."""
    small = "steps=20, num_tasks=3, examples_used=100, batch_size=20, pool=4"
    return Design(
        labels=f"label_reset({small})",
        targets=f"target_drift({small}, offset=16, scale=1)",
        network="mlp(16)",
        optimizer="adam(1e-3)",
        seeds=3,
        late=1,
        names=("l2", NORM, "redo", "two_hot", "shrink_perturb"),
    ).scale("about a minute, nearly all of it compilation; its verdicts mean nothing")


def laptop() -> Scale:
    small = "steps=300, examples_used=1000, pool=2"
    return Design(
        labels=f"label_reset({small}, num_tasks=10)",
        targets=f"target_drift({small}, num_tasks=10, offset=16, scale=0.1, frequency=1)",
        network="mlp(100)",
        optimizer="adam(1e-3)",
        seeds=4,
        late=3,
    ).scale("1,000 runs; for 984 of them 27 minutes by its own estimate on 2 free CPU cores, 75 on 2 that were shared")


def gpu() -> Scale:
    large = "steps=20000, num_tasks=20, examples_used=10000, batch_size=256"
    return Design(
        labels=f"label_reset({large})",
        targets=f"target_drift({large}, offset=16, scale=1)",
        network="mlp(512)",
        optimizer="adam(3e-4)",
        seeds=10,
        late=4,
    ).scale("400,000 updates a run, for a GPU; not run by us; strengths are those of the laptop scale")


#: What figures and tables call members whose name with spaces is not what people say.
LABELS = {"l2": "L2", "l2_init": "L2-init", "redo": "ReDo", "regrama": "ReGraMa", "crelu": "CReLU", "gelu": "GELU"} | {
    "cpr": "CPR", "sam": "SAM", "nap": "NaP", "upgd": "UPGD", "dash": "DASH", "fire": "FIRE", "trac": "TRAC",
    "infer": "InFeR", "elu": "ELU", "aid": "AID", "popart": "PopArt", "hl_gauss": "HL-Gauss", "c_chain": "C-CHAIN",
}  # fmt: skip
FACTORS = [name for name in mitigations.members() if name not in (*LEFT_OUT, NORM)]

STUDY = Study(
    name="all_mitigations",
    title="What does each mitigation do, alone and beside layer norm?",
    description=(
        "Every mitigation of the suite that can stand on the task, alone and with layer norm, on fresh random labels "
        "at every switch and on regression targets that grow in mean and scale. The fresh network is re-initialised at "
        "every switch. Strengths are the sources' defaults or scaled to runs of this size; none is tuned as its "
        "authors would."
    ),
    scales={"smoke": smoke, "laptop": laptop, "gpu": gpu},
    task_labels=TASKS,
    factors={NORM: "layer norm"} | {member(name): LABELS.get(name, name.replace("_", " ")) for name in FACTORS},
    reference=FRESH,
)
