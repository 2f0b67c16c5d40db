"""The main study: {layer norm} x {L2} x {activation or output head}, on label resets and on growing targets.

    python -m sweeps run factorial && python -m analysis report runs/factorial-laptop

Expect, at laptop scale, an unmitigated network whose end-of-task accuracy on fresh random labels falls towards chance
within 20 tasks, while a network that is re-initialised at every task goes on learning them; and a network
with layer norm and L2 that keeps learning. The claims are C10 to C13 of Lyle et al. 2024, "Disentangling the Causes
of Plasticity Loss in Neural Networks" (arXiv:2402.18762), decided by intervals over seeds.

What is ours: the paper's MLPs train for 100,000 updates a task with L2 1e-5; the laptop scale has 300 updates a task,
a larger learning rate and a larger L2, chosen in pilot runs with two or three of the seeds. The third factor is the
activation where targets are classes (leaky ReLU) and the output head where they are numbers (two-hot).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from plasticity import spec
from plasticity.claims import AllOf, AnyOf, Claim, Contrast, Outcome
from plasticity.mitigations import compose
from plasticity.mitigations.base import mitigations
from sweeps.grid import Grid, subsets
from sweeps.study import FRESH, Scale, Study

SOURCE = "Lyle et al. 2024, arXiv:2402.18762"
NORM, LEAKY = "layer_norm", "leaky_relu(0.1)"
#: Differences of scores below this are not held against a method: 5 points of accuracy or of explained variance.
MARGIN = 0.05
TASKS = {"label_reset": "Random-label reset", "target_drift": "Growing targets"}


def together(*members: str) -> str:
    """Canonical text of a combination, as the records have it."""
    return spec.to_text(compose.canonical(spec.build("+".join(members), mitigations)))


@dataclass(frozen=True)
class Design:
    """The two halves of the study at one scale. l2, head: spec texts; early, late: windows in tasks."""

    labels: str
    targets: str
    network: str
    optimizer: str
    l2: str
    head: str
    seeds: int
    early: int
    late: int

    def grid(self) -> Grid:
        """All subsets of three mitigations on each task, and the re-initialised reference."""
        common = {"network": (self.network,), "optimizer": (self.optimizer,), "seeds": self.seeds}
        labels = Grid({"label_reset": self.labels}, (*subsets(NORM, self.l2, LEAKY), FRESH), **common)
        targets = Grid({"target_drift": self.targets}, (*subsets(NORM, self.l2, self.head), FRESH), **common)
        return labels + targets

    def _late(self, task: str, *members: str) -> Outcome:
        return Outcome(task, together(*members), last=self.late)

    def _early(self, task: str, *members: str) -> Outcome:
        return Outcome(task, together(*members), first=self.early)

    @property
    def best(self) -> Mapping[str, tuple[str, ...]]:
        """The combination that the paper recommends, on each task."""
        return {"label_reset": (NORM, self.l2), "target_drift": (NORM, self.l2, self.head)}

    def _words(self, *members: str) -> str:
        """A combination as people say it."""
        names = {NORM: "layer norm", self.l2: "L2", LEAKY: "leaky ReLU", self.head: "two-hot head"}
        return " + ".join(names[member] for member in members) or "no mitigation"

    def claims(self) -> tuple[Claim, ...]:
        """C10 to C13 as contrasts of scores, paired by seed, and the additivity that the paper asserts."""
        return (
            self._no_single(),
            self._combination_holds(),
            self._peak_for_stability(),
            self._categorical_head(),
            self._additive(),
        )

    def _no_single(self) -> Claim:
        def falls_short(task: str, *single: str) -> Contrast:
            name = f"{TASKS[task]}: recommended combination minus {self._words(*single)} alone, late tasks"
            terms = ((1.0, self._late(task, *self.best[task])), (-1.0, self._late(task, *single)))
            return Contrast(name.replace("no mitigation alone", "no mitigation"), terms, margin=MARGIN)

        tried = {
            NORM: tuple(self.best),
            self.l2: tuple(self.best),
            LEAKY: ("label_reset",),
            self.head: ("target_drift",),
        }
        parts = []
        for single, on in tried.items():
            shortfalls = [falls_short(task, single) for task in on]
            if single == self.head:
                # A classifier's softmax is a categorical head: without other mitigations it is this head alone.
                shortfalls.append(falls_short("label_reset"))
            parts.append(AnyOf(tuple(shortfalls), f"{self._words(single)} alone falls short somewhere"))
        statement = (
            f"No single mitigation suffices everywhere: each falls short of the combination by more than {MARGIN}. "
            "(A classifier without mitigations has a categorical head already.)"
        )
        return Claim("C10", statement, SOURCE, AllOf(tuple(parts)))

    def _combination_holds(self) -> Claim:
        parts: list[Contrast] = []
        for task, members in self.best.items():
            where, what = TASKS[task], self._words(*members)
            decline = ((1.0, self._early(task, *members)), (-1.0, self._late(task, *members)))
            behind = ((1.0, self._late(task, FRESH)), (-1.0, self._late(task, *members)))
            parts.append(Contrast(f"{where}: {what}, early minus late tasks", decline, "less", MARGIN))
            parts.append(Contrast(f"{where}: fresh network minus {what}, late tasks", behind, "less", MARGIN))
        statement = "The combination holds: no decline over tasks, and never behind a fresh network on the same task."
        return Claim("C11", statement, SOURCE, AllOf(tuple(parts)))

    def _peak_for_stability(self) -> Claim:
        alone, both = (NORM,), (NORM, self.l2)
        early = ((1.0, self._early("label_reset", *alone)), (-1.0, self._early("label_reset", *both)))
        late = ((1.0, self._late("label_reset", *both)), (-1.0, self._late("label_reset", *alone)))
        where = TASKS["label_reset"]
        parts = (
            Contrast(f"{where}: layer norm alone minus with L2, early tasks", early),
            Contrast(f"{where}: layer norm with L2 minus alone, late tasks", late),
        )
        statement = "L2 trades peak for stability: layer norm alone is ahead early, layer norm with L2 late."
        return Claim("C12", statement, SOURCE, AllOf(parts))

    def _categorical_head(self) -> Claim:
        with_head = self._late("target_drift", NORM, self.l2, self.head)
        without = self._late("target_drift", NORM, self.l2)
        name = f"{TASKS['target_drift']}: layer norm + L2, two-hot minus linear head, late tasks"
        statement = "Growing targets need a categorical head: layer norm and L2 alone are not enough."
        return Claim("C13", statement, SOURCE, Contrast(name, ((1.0, with_head), (-1.0, without))))

    def _additive(self) -> Claim:
        """The paper calls the benefits additive and reports no interaction; this is the contrast that decides it."""
        task = "label_reset"
        terms = (
            (1.0, self._late(task, NORM, self.l2)),
            (-1.0, self._late(task, NORM)),
            (-1.0, self._late(task, self.l2)),
            (1.0, self._late(task, "none")),
        )
        name = f"{TASKS[task]}: interaction of layer norm and L2, late tasks"
        statement = f"The benefits of layer norm and L2 add up: their interaction is not below -{MARGIN}."
        return Claim("additivity", statement, SOURCE, Contrast(name, terms, margin=-MARGIN))

    def scale(self, cost: str) -> Scale:
        return Scale(self.grid(), cost, self.claims())


def smoke() -> Scale:
    """Every program of the study, and hardly any learning: for CI."""
    small = "steps=20, num_tasks=3, examples_used=100, batch_size=20, pool=4"
    return Design(
        labels=f"label_reset({small})",
        targets=f"target_drift({small}, offset=16, scale=1)",
        network="mlp(16)",
        optimizer="adam(1e-3)",
        l2="l2(5e-3)",
        head="two_hot(51)",
        seeds=3,
        early=1,
        late=1,
    ).scale("about a minute, nearly all of it compilation; its verdicts mean nothing")


def laptop() -> Scale:
    small = "steps=300, examples_used=1000, pool=2"
    return Design(
        labels=f"label_reset({small}, num_tasks=20)",
        targets=f"target_drift({small}, num_tasks=12, offset=16, scale=0.1, frequency=1)",
        network="mlp(100)",
        optimizer="adam(1e-3)",
        l2="l2(5e-3)",
        head="two_hot(255)",
        seeds=8,
        early=5,
        late=4,
    ).scale("a few minutes on 2 CPU cores")


def paper() -> Scale:
    """Task length, L2 and learning rate of the paper and its companions, on all embedded images at full size."""
    large = "steps=100000, num_tasks=20, examples_used=10000, batch_size=256"
    return Design(
        labels=f"label_reset({large})",
        targets=f"target_drift({large}, offset=16, scale=1)",
        network="mlp(512)",
        optimizer="adam(1e-4)",
        l2="l2(1e-5)",
        head="two_hot(255)",
        seeds=10,
        early=5,
        late=5,
    ).scale("long: 360 million updates in all, for a GPU; not run by us")


STUDY = Study(
    name="factorial",
    title="Which combination of mitigations keeps a network trainable?",
    description=(
        "All combinations of layer norm, L2 and a third mitigation (leaky ReLU where targets are classes, a two-hot "
        "head where they are numbers) on two nonstationary tasks: fresh random labels at every switch, and "
        "regression targets that grow in mean and scale. A network that is re-initialised at every switch shows what "
        "each task allows without loss of plasticity."
    ),
    scales={"smoke": smoke, "laptop": laptop, "paper": paper},
    task_labels=TASKS,
    factors={
        NORM: "layer norm",
        "l2(0.005)": "L2",
        LEAKY: "leaky ReLU",
        "two_hot(255)": "two-hot head",
        "l2": "L2",  # of 1e-5, the default
        "two_hot(51)": "two-hot head",
    },
    reference=FRESH,
)
