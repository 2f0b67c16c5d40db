"""From recorded numbers to a short text: which mechanism they point to, how surely, and what addresses it.

Each mechanism has a rule on the early and the late readings (the first and the last fifth, at least two each). A sign
is *clear* if the late readings lie beyond the early ones without overlap, else *weak*. Thresholds are this suite's own
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


@dataclass(frozen=True)
class Ends:
    """Early and late readings of one quantity."""

    name: str
    early: np.ndarray
    late: np.ndarray

    @property
    def change(self) -> float:
        return float(self.late.mean() - self.early.mean())

    @property
    def ratio(self) -> float:
        before = float(self.early.mean())
        return float(self.late.mean()) / before if before else np.inf

    @property
    def apart(self) -> bool:
        """Whether late readings lie beyond all early ones."""
        return bool(self.late.min() > self.early.max() or self.late.max() < self.early.min())

    def words(self) -> str:
        low, high = self.late.min(), self.late.max()
        spread = f"{low:.3g} to {high:.3g}" if low < high else f"{high:.3g}"
        return (
            f"{self.name.replace('_', ' ')} went from {self.early.mean():.3g} to {self.late.mean():.3g} "
            f"(late readings {spread}, n={self.late.size})"
        )


@dataclass(frozen=True)
class Mechanism:
    """metrics: names it can be seen in. shows: whether the ends of a metric are a sign. rule: that in words.

    remedies: mitigation and source.
    """

    title: str
    metrics: tuple[str, ...]
    shows: Callable[[Ends], bool]
    rule: str
    remedies: tuple[tuple[str, str], ...]


MECHANISMS = (
    Mechanism(
        "dead or dormant units",
        ("dead_units", "dormant_units"),
        lambda e: e.late.mean() >= 0.1 and e.change >= 0.05,
        "at least 0.1 of the units, and 0.05 more than at the start",
        (
            ("layer_norm", "Lyle et al. 2024, arXiv:2402.18762"),
            ("redo", "Sokar et al. 2023, arXiv:2302.12902"),
            ("crelu", "Abbas et al. 2023, arXiv:2303.07507"),
        ),
    ),
    Mechanism(
        "linearised units",
        ("linearized_units",),
        lambda e: e.late.mean() >= 0.2 and e.change >= 0.1,
        "at least 0.2 of the units, and 0.1 more than at the start",
        (("layer_norm", "Lyle et al. 2024, arXiv:2402.18762"),),
    ),
    Mechanism(
        "growth of the parameter norm",
        ("weight_norm",),
        lambda e: e.ratio >= 2,
        "at least twice the norm at the start",
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
        "at most 0.7 of the rank at the start",
        (
            ("layer_norm", "Lyle et al. 2023, arXiv:2303.01486"),
            ("redo", "Sokar et al. 2023, arXiv:2302.12902"),
        ),
    ),
    Mechanism(
        "ill-conditioned targets",
        ("target_offset",),
        lambda e: e.late.mean() >= 5,
        "a mean of at least 5 standard deviations",
        (
            ("two_hot", "Lyle et al. 2024, arXiv:2402.18762"),
            ("hl_gauss", "Farebrother et al. 2024, arXiv:2403.03950"),
        ),
    ),
    Mechanism(
        "growing targets",
        ("target_std",),
        lambda e: e.ratio >= 5,
        "a spread at least 5 times the one at the start",
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
    broken = sorted(name for name, values in series.items() if not np.isfinite(values).all())
    ends = {name: _ends(name, values) for name, values in series.items() if _enough(values)}
    found = [(m, [ends[n] for n in m.metrics if n in ends and m.shows(ends[n])]) for m in MECHANISMS]
    signs = [(mechanism, evidence) for mechanism, evidence in found if evidence]
    probe = _probe(series)
    lines: list[str] = []
    if broken:
        lines.append(f"Not finite at some point: {', '.join(broken)}. The run has diverged; the rest is of little use.")
    if not signs and probe.lost is not True:
        seen = [m.title for m in MECHANISMS if any(n in ends for n in m.metrics)]
        lines.append(f"No sign of plasticity loss in what was recorded ({', '.join(seen) or 'no diagnostics'}).")
    for mechanism, evidence in signs:
        surely = "Clear" if all(e.apart for e in evidence) else "Weak"
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


def _probe(series: dict[str, np.ndarray]) -> _Probe:
    """What trainability probes have shown, with the uncertainty over them."""
    aged, fresh = series.get("probe_loss", np.zeros(0)), series.get("probe_loss_fresh", np.zeros(0))
    count = min(aged.size, fresh.size)
    if count == 0:
        text = (
            "No probe was recorded, so whether the network learns less well than a fresh one is not known: "
            "plasticity.probes.trainability measures it; record its result as probe_loss= and probe_loss_fresh=."
        )
        return _Probe(None, text)
    last = min(count, max(2, count // 2))
    gap = (aged[-count:] - fresh[-count:])[-last:]
    mean = float(gap.mean())
    error = float(gap.std(ddof=1) / np.sqrt(gap.size)) if gap.size > 1 else np.nan
    shown = f"{mean:+.3g}" + (f" (standard error {error:.2g}, n={gap.size})" if gap.size > 1 else " (one probe)")
    what = f"The probe's loss minus that of a fresh network, in shares of the targets' variance: {shown}."
    if gap.size < 2:
        return _Probe(None, f"{what} One probe is too few to tell.")
    if mean > 0.05 and mean > 2 * error:
        return _Probe(True, f"{what} The network has lost trainability.")
    return _Probe(False, f"{what} No loss of trainability is shown.")


def _series(readings: Sequence[Any]) -> dict[str, np.ndarray]:
    """Values of the whole network by name; where there are only layers, their mean. Targets also as an offset."""
    by: dict[str, dict[int, list[float]]] = {}
    whole = {r.name for r in readings if not r.layer}
    for r in readings:
        if not r.layer or r.name not in whole:
            by.setdefault(r.name, {}).setdefault(r.step, []).append(r.value)
    series = {name: np.array([np.mean(values[s]) for s in sorted(values)]) for name, values in by.items()}
    if "target_mean" in series and "target_std" in series:
        spread = np.maximum(series["target_std"], 1e-12)
        series["target_offset"] = np.abs(series["target_mean"]) / spread
    return series


def _enough(values: np.ndarray) -> bool:
    return values.size >= FEWEST and bool(np.isfinite(values).all())


def _ends(name: str, values: np.ndarray) -> Ends:
    part = max(2, values.size // 5)
    return Ends(name, values[:part], values[-part:])
