"""The verdict in plain words: what a colleague would want to read first, and how far to trust it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import pandas as pd

from analysis.ranking import Ranking, Standing, rank
from analysis.stats import Estimate
from analysis.study import NONE, Study
from analysis.tables import best_by_task, late_table, number, span
from analysis.verdicts import FEWEST_SEEDS, DecidedClaim, decide_all


@dataclass(frozen=True)
class Summary:
    """headline: one sentence. sentences: what stands behind it. facts: (label, value, detail) for tiles."""

    headline: str
    sentences: tuple[str, ...]
    facts: tuple[tuple[str, str, str], ...]
    claims: tuple[DecidedClaim, ...]
    ranking: Ranking
    table: pd.DataFrame


def summarise_study(frame: pd.DataFrame, study: Study) -> Summary:
    """Rank the combinations, decide the claims, and say both in words."""
    ranking, claims = rank(frame, study), tuple(decide_all(frame, study))
    table = late_table(frame, study)
    headline, sentences, facts = _best(ranking, table, study)
    if claims:
        count = Counter(c.verdict for c in claims)
        parts = [f"{count[v]} {v}" for v in ("reproduced", "not reproduced", "undecided") if count[v]]
        sentences.append(f"Of {_plural(len(claims), 'claim')} tested: {_join(parts)}.")
        facts.append(("Claims", f"{count['reproduced']} of {len(claims)}", "reproduced"))
    sentences += _runs(study)
    return Summary(headline, tuple(sentences), tuple(facts), claims, ranking, table)


def _best(ranking: Ranking, table: pd.DataFrame, study: Study) -> tuple[str, list[str], list[tuple[str, str, str]]]:
    best = ranking.best
    if best is None:
        return "No verdict yet: no combination has finished runs for every task kind.", [], []
    name, k = study.label(best.combination), len(ranking.standings)
    where = f"over {_plural(len(ranking.tasks), 'task kind')}"
    said = [
        f"Its late score is {number(best.score.value)} {span(best.score.low, best.score.high)} {where} "
        "(score in the last fifth of the tasks; interquartile mean over seeds, averaged over task kinds)."
    ]
    facts = [("Late score", number(best.score.value), f"{span(best.score.low, best.score.high)} {where}")]
    if best.combination == NONE:
        headline = "No mitigation kept the network more trainable than doing without."
    elif best.gain is None:
        headline = f"{_capital(name)} scored highest; without a run of no mitigation its gain cannot be told."
    else:
        headline = _headline(name, best.gain)
        widened = f", widened for choosing the best of {k}" if k > 2 else ""
        level = _percent(best.gain.level)
        said.append(
            f"Against no mitigation that is {_difference(best.gain)}, paired by seed ({level} interval{widened})."
        )
        facts.append(
            (
                "Against no mitigation",
                number(best.gain.value, signed=True),
                span(best.gain.low, best.gain.high, signed=True),
            )
        )
    if best.gap is not None:
        said.append(_against_fresh(best.gap))
        facts.append(
            (
                "Against a fresh network",
                number(best.gap.value, signed=True),
                span(best.gap.low, best.gap.high, signed=True),
            )
        )
    said += _certainty(best, ranking, study)
    winners = best_by_task(table[table["task"].isin(ranking.tasks)], study)
    own = sum(c == best.combination for c in winners.values())
    if len(winners) > 1 and own < len(winners):
        others = [f"{study.label(c)} on {study.task(t).label}" for t, c in winners.items() if c != best.combination]
        said.append(
            f"It scored highest on {own} of {len(winners)} task kinds; elsewhere the first was {_join(others)}."
        )
    elif len(winners) > 1:
        said.append("It scored highest on every task kind.")
    return headline, said, facts


def _headline(name: str, gain: Estimate) -> str:
    if gain.n < FEWEST_SEEDS or math.isnan(gain.low):
        seeds = _plural(gain.n, "seed")
        return f"{_capital(name)} scored highest, but {seeds} cannot show whether it beats no mitigation."
    if gain.low > 0:
        return f"{_capital(name)} kept the network trainable best: {_difference(gain)} above no mitigation."
    return f"No combination is shown to beat no mitigation; {name} scored highest ({_difference(gain)})."


def _against_fresh(gap: Estimate) -> str:
    if math.isnan(gap.low):
        return f"It differs from a network that starts afresh at every task by {_difference(gap)}."
    if gap.high < 0:
        rest = "so some plasticity is still lost"
    elif gap.low > 0:
        rest = "so it gains from earlier tasks"
    else:
        rest = "so a loss of plasticity is not shown"
    return f"Against a network that starts afresh at every task it stands at {_difference(gap)}, {rest}."


def _certainty(best: Standing, ranking: Ranking, study: Study) -> list[str]:
    if len(ranking.standings) < 2:
        return []
    said = []
    if best.share_first:
        said.append(f"How certain: when seeds are resampled it comes first in {best.share_first:.0%} of cases.")
    near = [s for s in ranking.standings[1:] if s.behind is None or not s.behind.high < 0]
    if near:
        said.append(f"Not clearly behind it: {_join([study.label(s.combination) for s in near])}.")
    else:
        said.append("Every other combination is clearly behind it.")
    if ranking.incomplete:
        said.append(f"Not ranked, because runs are missing: {_join([study.label(c) for c in ranking.incomplete])}.")
    return said


def _runs(study: Study) -> list[str]:
    count = Counter(study.runs["status"])
    total = max(study.planned, len(study.runs))
    finished = count["done"] + count["diverged"]
    said = []
    if finished < total:
        said.append(f"Preliminary: {finished} of {total} runs have finished.")
    if count["diverged"]:
        verb = "counts" if count["diverged"] == 1 else "count"
        said.append(f"{_plural(count['diverged'], 'run')} diverged and {verb} as score 0 from there on.")
    if count["failed"]:
        said.append(f"{_plural(count['failed'], 'run')} failed and {'is' if count['failed'] == 1 else 'are'} left out.")
    return said


def _difference(e: Estimate) -> str:
    return f"{number(e.value, signed=True)} {span(e.low, e.high, signed=True)}"


def _percent(level: float) -> str:
    return f"{100 * level:.3g} %"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _join(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
