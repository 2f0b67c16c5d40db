"""From recorded numbers to a short text: which mechanism they point to, how surely, and what addresses it.

Each mechanism has a rule on the early and the late readings: those in the first and in the last fifth of the steps, at
least two each. Means weigh a reading by the steps around it, so that dense readings after the start and after a task
change do not count for more than the few steps they lie in. A sign is *clear* if the late readings lie beyond the early
ones without overlap (for a rule on the level: if all late readings do), else *weak*. Thresholds are this suite's own
choice and are printed with the evidence. Signs are not losses: only a trainability probe (`plasticity.probes`)
measures whether the network still learns, and the text never claims more than a probe has shown.

Mechanisms and what addresses them: Lyle et al. 2024 (arXiv:2402.18762) and the papers named beside each mitigation.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Steps with readings below which nothing is said.
FEWEST = 4
WIDTH = 100
#: Infinite by definition, for one dead unit: no sign of a run that diverged.
UNBOUNDED = ("condition_number",)
#: A loss of trainability is claimed from this gap on, in shares of the targets' variance.
LEAST_GAP = 0.05
#: Two-sided 95 % points of Student's t by degrees of freedom from 1 on; beyond the last the last, which is wider.
T95 = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131)


@dataclass(frozen=True)
class Ends:
    """Early and late readings of one quantity; before and after are their means over steps."""

    name: str
    early: np.ndarray
    late: np.ndarray
    before: float
    after: float

    @property
    def change(self) -> float:
        return self.after - self.before

    @property
    def ratio(self) -> float:
        if self.before == 0:
            return 1.0 if self.after == 0 else np.inf
        return self.after / self.before

    @property
    def apart(self) -> bool:
        """Whether late readings lie beyond all early ones."""
        return bool(self.late.min() > self.early.max() or self.late.max() < self.early.min())

    def words(self) -> str:
        low, high = self.late.min(), self.late.max()
        spread = f"{low:.3g} to {high:.3g}" if low < high else f"{high:.3g}"
        return (
            f"{self.name.replace('_', ' ')} went from {self.before:.3g} to {self.after:.3g} "
            f"(late readings {spread}, n={self.late.size})"
        )


@dataclass(frozen=True)
class Mechanism:
    """metrics: names it can be seen in. shows: whether the ends of a metric are a sign. rule: that in words.

    remedies: mitigation and source. level: of a rule on the level alone, which readings must reach to be a clear sign.
    """

    title: str
    metrics: tuple[str, ...]
    shows: Callable[[Ends], bool]
    rule: str
    remedies: tuple[tuple[str, str], ...]
    level: float | None = None

    def clear(self, evidence: Ends) -> bool:
        """Whether no late reading speaks against the sign."""
        return evidence.apart if self.level is None else bool(evidence.late.min() >= self.level)


MECHANISMS = (
    Mechanism(
        "dead or dormant units",
        ("dead_units", "dormant_units"),
        lambda e: e.after >= 0.1 and e.change >= 0.05,
        "at least 0.1 of the units, and 0.05 more than early on",
        (
            ("layer_norm", "Lyle et al. 2024, arXiv:2402.18762"),
            ("redo", "Sokar et al. 2023, arXiv:2302.12902"),
            ("crelu", "Abbas et al. 2023, arXiv:2303.07507"),
        ),
    ),
    Mechanism(
        "linearised units",
        ("linearized_units",),
        lambda e: e.after >= 0.2 and e.change >= 0.1,
        "at least 0.2 of the units, and 0.1 more than early on",
        (("layer_norm", "Lyle et al. 2024, arXiv:2402.18762"),),
    ),
    Mechanism(
        "growth of the parameter norm",
        ("weight_norm",),
        lambda e: e.ratio >= 2,
        "at least twice the early norm",
        (
            ("l2", "Lyle et al. 2024, arXiv:2402.18762"),
            ("weight_decay", "Loshchilov & Hutter 2019, arXiv:1711.05101"),
            ("l2_init", "Kumar et al. 2023, arXiv:2308.11958"),
        ),
    ),
    Mechanism(
        "loss of rank",
        ("effective_rank", "srank"),
        lambda e: e.ratio <= 0.7,
        "at most 0.7 of the early rank",
        (
            ("layer_norm", "Lyle et al. 2023, arXiv:2303.01486"),
            ("redo", "Sokar et al. 2023, arXiv:2302.12902"),
        ),
    ),
    Mechanism(
        "ill-conditioned targets",
        ("target_offset",),
        lambda e: e.after >= 5,
        "a mean of at least 5 standard deviations",
        (
            ("two_hot", "Lyle et al. 2024, arXiv:2402.18762"),
            ("hl_gauss", "Farebrother et al. 2024, arXiv:2403.03950"),
        ),
        level=5.0,
    ),
    Mechanism(
        "growing targets",
        ("target_std",),
        lambda e: e.ratio >= 5,
        "a spread at least 5 times the early one",
        (
            ("two_hot", "Lyle et al. 2024, arXiv:2402.18762"),
            ("hl_gauss", "Farebrother et al. 2024, arXiv:2403.03950"),
        ),
    ),
)


def explain(readings: Sequence[Any]) -> str:
    """The text for readings with `step, name, layer, value` (`plasticity.monitor.Reading`), oldest first."""
    series = _series(readings)
    steps = max((len(values) for values in series.values()), default=0)
    if steps < FEWEST:
        return f"Too few measurements to say anything: {steps}, and at least {FEWEST} are needed."
    broken = sorted(
        n for n, values in series.items() if n not in UNBOUNDED and not np.isfinite([*values.values()]).all()
    )
    ends = {
        name: _ends(name, values) for name, values in series.items() if len(values) >= FEWEST and name not in broken
    }
    judged = [m for m in MECHANISMS if any(n in ends for n in m.metrics)]
    found = [(m, [ends[n] for n in m.metrics if n in ends and m.shows(ends[n])]) for m in judged]
    signs = [(mechanism, evidence) for mechanism, evidence in found if evidence]
    probe = _probe(series)
    lines: list[str] = []
    if broken:
        lines.append(
            f"Not finite at some point: {', '.join(broken)}. Such a quantity is not judged; if it is the loss, a norm "
            "or most of what was recorded, the run has diverged and the rest is of little use."
        )
    titles = ", ".join(m.title for m in judged)
    if not judged:
        lines.append(f"No mechanism can be judged: none of its diagnostics has {FEWEST} finite measurements.")
    elif not signs and probe.lost is True:
        lines.append(f"None of the mechanisms that can be judged shows a sign ({titles}).")
    elif not signs:
        lines.append(f"No sign of plasticity loss in what was recorded ({titles}).")
    for mechanism, evidence in signs:
        surely = "Clear" if all(mechanism.clear(e) for e in evidence) else "Weak"
        lines.append(f"{surely} sign of {mechanism.title}: {'; '.join(e.words() for e in evidence)}.")
        lines.append(f"  A sign is {mechanism.rule}.")
        lines.append("  Addressed by " + "; ".join(f"{name} ({source})" for name, source in mechanism.remedies) + ".")
    lines.append(probe.words)
    indented = (textwrap.fill(line, WIDTH, subsequent_indent="  " if line[:1] == " " else "") for line in lines)
    return "\n".join(indented)


@dataclass(frozen=True)
class _Probe:
    lost: bool | None
    words: str


def _probe(series: dict[str, dict[int, float]]) -> _Probe:
    """What trainability probes have shown, with the uncertainty over them."""
    aged, fresh = series.get("probe_loss", {}), series.get("probe_loss_fresh", {})
    gaps = [aged[step] - fresh[step] for step in sorted(aged.keys() & fresh.keys())]
    if not gaps:
        text = (
            "No probe was recorded, so whether the network learns less well than a fresh one is not known: "
            "plasticity.probes.trainability measures it; record its result as probe_loss= and probe_loss_fresh=."
        )
        return _Probe(None, text)
    gap = np.array(gaps[-max(2, len(gaps) // 2) :])
    if not np.isfinite(gap).all():
        return _Probe(None, "A probe's loss was not finite: whether the network still learns is not known from it.")
    mean = float(gap.mean())
    error = float(gap.std(ddof=1) / np.sqrt(gap.size)) if gap.size > 1 else np.nan
    shown = f"{mean:+.3g}" + (f" (standard error {error:.2g}, n={gap.size})" if gap.size > 1 else " (one probe)")
    what = f"The probe's loss minus that of a fresh network, in shares of the targets' variance: {shown}."
    if gap.size < 2:
        return _Probe(None, f"{what} One probe is too few to tell.")
    sure = T95[min(gap.size - 2, len(T95) - 1)] * error
    if mean > LEAST_GAP and mean > sure:
        return _Probe(True, f"{what} The network has lost trainability.")
    if mean + sure > LEAST_GAP:
        return _Probe(False, f"{what} No loss of trainability is shown, and none is excluded: more probes would tell.")
    return _Probe(False, f"{what} No loss of trainability is shown.")


def _series(readings: Sequence[Any]) -> dict[str, dict[int, float]]:
    """step -> value of the whole network, by name; where there are only layers, their mean. Targets also as an offset.

    Of several readings at one step the last counts.
    """
    whole = {r.name for r in readings if not r.layer}
    by: dict[str, dict[int, dict[str, float]]] = {}
    for r in readings:
        if not r.layer or r.name not in whole:
            by.setdefault(r.name, {}).setdefault(r.step, {})[r.layer] = r.value
    series = {
        name: {step: float(np.mean(list(values[step].values()))) for step in sorted(values)}
        for name, values in by.items()
    }
    mean, spread = series.get("target_mean", {}), series.get("target_std", {})
    # Targets without a spread, as of one example, have no offset in units of it.
    offset = {step: abs(mean[step]) / spread[step] for step in mean if spread.get(step)}
    return series | ({"target_offset": offset} if offset else {})


def _ends(name: str, values: dict[int, float]) -> Ends:
    steps, numbers = np.array(list(values), float), np.array(list(values.values()))
    weights = np.gradient(steps)
    part = (steps[-1] - steps[0]) / 5
    first = max(2, int((steps <= steps[0] + part).sum()))
    last = max(2, int((steps >= steps[-1] - part).sum()))
    before = np.average(numbers[:first], weights=weights[:first])
    after = np.average(numbers[-last:], weights=weights[-last:])
    return Ends(name, numbers[:first], numbers[-last:], float(before), float(after))
