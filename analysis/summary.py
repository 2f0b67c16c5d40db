"""The verdict in plain words: what a colleague would want to read first, and how far to trust it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace

import pandas as pd

from analysis.outcomes import END
from analysis.ranking import Ranking, Standing, rank
from analysis.stats import Estimate
from analysis.study import BESIDE, NONE, Study
from analysis.tables import best_by_task, late_table
from analysis.verdicts import FEWEST_SEEDS, DecidedClaim, decide_all
from analysis.words import capital, estimate, listed, number, places, plural, span
from plasticity.record import FINISHED

Fact = tuple[str, str, str]


@dataclass(frozen=True)
class Summary:
    """headline: one or two sentences. paragraphs: what stands behind them. facts: (label, value, detail) for tiles.

    ranking: of the combinations that were tried on every task kind.
    """

    headline: str
    paragraphs: tuple[str, ...]
    facts: tuple[Fact, ...]
    claims: tuple[DecidedClaim, ...]
    ranking: Ranking
    table: pd.DataFrame


def summarise_study(frame: pd.DataFrame, study: Study) -> Summary:
    """Rank the combinations, decide the claims, and say both in words.

    Where some combinations exist on some task kinds only (a regression head cannot stand on classes), the best of each
    task kind is what can be said; an overall best would leave them out. So it is where scores are raw returns of
    different games.
    """
    ranking, claims = rank(frame, study), tuple(decide_all(frame, study))
    table = late_table(frame, study)
    facts: list[Fact] = []
    headlines: list[str] = []
    paragraphs: list[str] = []
    parts = [_only(frame, study, task.key) for task in study.tasks] if _apart(study) else [(frame, study)]
    if not study.comparable:
        ranking = Ranking((), {}, tuple(study.combinations), ())
    for own_frame, own in parts:
        where = own.tasks[0].label if len(parts) > 1 else ""
        own_ranking = rank(own_frame, own) if len(parts) > 1 else ranking
        if own_ranking.best is not None:
            headlines.append((f"{where}: " if where else "") + _headline(own_ranking.best, own_ranking, own))
            own_facts: list[Fact] = []
            said = [
                " ".join(_size(own_ranking.best, own_ranking, own, own_facts)),
                " ".join(_certainty(own_ranking.best, own_ranking, own)),
            ]
            if where:
                paragraphs.append(f"{where}. {' '.join(said)}")
                facts += [(f"{where}: {label.lower()}", value, detail) for label, value, detail in own_facts[:2]]
            else:
                said[1] = " ".join([said[1], *_by_task(own_ranking.best, own_ranking, table, own)]).strip()
                paragraphs += said
                facts += own_facts
    headline = " ".join(headlines) or _no_verdict(frame, study)
    if claims:
        count = Counter(c.verdict for c in claims)
        counts = [f"{count[v]} {v}" for v in ("reproduced", "not reproduced", "undecided") if count[v]]
        paragraphs.append(f"Of {plural(len(claims), 'claim')} tested: {listed(counts)}.")
        facts.append(("Claims reproduced", f"{count['reproduced']} of {len(claims)}", listed(counts)))
    paragraphs.append(" ".join(_runs(study) + _progress(frame, study)))
    return Summary(headline, tuple(p for p in paragraphs if p), tuple(facts), claims, ranking, table)


def _apart(study: Study) -> bool:
    """Whether not all combinations can be compared over all task kinds.

    They were planned on different ones, or the scores of different games are raw returns, which cannot be averaged.
    """
    if not study.comparable:
        return True
    planned = {c: frozenset(runs["task"]) for c, runs in study.runs.groupby("combination", observed=True)}
    return len(set(planned.values())) > 1


def _only(frame: pd.DataFrame, study: Study, task: str) -> tuple[pd.DataFrame, Study]:
    """The part of a study that is about one task kind."""
    own = replace(study, tasks=(study.task(task),), runs=study.runs[study.runs["task"] == task])
    return frame[frame["task"] == task], own


def _near(ranking: Ranking) -> list[Standing]:
    """Combinations whose distance from the best has an interval that reaches 0."""
    return [s for s in ranking.standings[1:] if s.behind is None or not s.behind.high < 0]


def _headline(best: Standing, ranking: Ranking, study: Study) -> str:
    name, gain = capital(study.label(best.combination)), best.gain
    if best.combination.partition(BESIDE)[0] == NONE:
        plain = all(s.combination.partition(BESIDE)[0] == NONE for s in ranking.standings)
        if plain and len(ranking.standings) == 1:
            return f"Only {study.label(best.combination)} was run: its late score is {estimate(best.score)}."
        if plain:
            return f"{name} scored highest: {estimate(best.score)}{_rivals(ranking, study)}."
        return "No combination scored higher than no mitigation."
    if gain is None:
        return f"{name} scored highest; without complete runs of no mitigation its gain cannot be told."
    if gain.n < FEWEST_SEEDS or math.isnan(gain.low):
        return f"{name} scored highest, but {plural(gain.n, 'seed')} cannot show whether it beats no mitigation."
    if not gain.low > 0:
        return f"{name} scored highest, but is not shown to beat no mitigation: {estimate(gain, signed=True)}."
    rest = _rivals(ranking, study)
    return f"{name} {study.terms.best}: {estimate(gain, signed=True)} above no mitigation{rest}."


def _rivals(ranking: Ranking, study: Study) -> str:
    """Who may be as good as the best, as the end of a sentence."""
    near = [study.label(s.combination) for s in _near(ranking)]
    return f"; {listed(near) if len(near) < 3 else f'{len(near)} others'} may be as good" if near else ""


def _size(best: Standing, ranking: Ranking, study: Study, facts: list[Fact]) -> list[str]:
    """How large the score and the differences are; fills `facts` on the way."""
    several = len(ranking.tasks) > 1
    terms = study.terms
    where = f" over {plural(len(ranking.tasks), terms.kind)}" if several else ""
    said = [
        f"Its late score is {estimate(best.score)}{where}: {terms.late}, "
        f"interquartile mean over seeds{f', averaged over {terms.kinds}' if several else ''}."
    ]
    facts.append(("Late score of the best", *_fact(best.score)))
    if best.gain is not None:
        k = len(ranking.standings)
        widened = f", widened for choosing the best of {k}" if k > 2 else ""
        level = f"{100 * best.gain.level:.4g} %"
        said.append(
            f"Against no mitigation that is {estimate(best.gain, signed=True)}, paired by seed "
            f"({level} interval{widened})."
        )
        facts.append(("Against no mitigation", *_fact(best.gain, signed=True)))
    if best.gap is not None:
        said.append(_against_fresh(best.gap, study))
        facts.append(("Against a fresh network", *_fact(best.gap, signed=True)))
    return said


def _fact(e: Estimate, signed: bool = False) -> tuple[str, str]:
    value = number(e.value, places(e.low, e.high, e.value), signed=signed)
    return value, f"{span(e.low, e.high, signed=signed)}, {plural(e.n, 'seed')}"


def _against_fresh(gap: Estimate, study: Study) -> str:
    difference, terms = estimate(gap, signed=True), study.terms
    if math.isnan(gap.low):
        return f"It differs from {terms.afresh} by {difference}."
    if gap.high < 0:
        rest = "so some plasticity is still lost"
    elif gap.low > 0:
        rest = terms.gains
    else:
        rest = "so a loss of plasticity is not shown"
    return f"Against {terms.afresh} it stands at {difference}, {rest}."


def _certainty(best: Standing, ranking: Ranking, study: Study) -> list[str]:
    if len(ranking.standings) < 2:
        return []
    said = []
    if best.share_first:
        share = "more than 99 %" if best.share_first > 0.99 else f"{100 * best.share_first:.0f} %"
        said.append(f"How certain: when seeds are resampled it comes first in {share} of cases.")
    near = [study.label(s.combination) for s in _near(ranking)]
    said.append(f"Not clearly behind it: {listed(near)}." if near else "Every other combination is clearly behind it.")
    if ranking.incomplete:
        said.append(f"Not ranked, because runs are missing: {listed([study.label(c) for c in ranking.incomplete])}.")
    return said


def _by_task(best: Standing, ranking: Ranking, table: pd.DataFrame, study: Study) -> list[str]:
    winners = best_by_task(table[table["task"].isin(ranking.tasks)], study)
    if len(winners) < 2:
        return []
    others = [f"{study.label(c)} on {study.task(t).label}" for t, c in winners.items() if c != best.combination]
    if not others:
        return [f"It scored highest on every {study.terms.kind}."]
    own = len(winners) - len(others)
    return [
        f"It scored highest on {own} of {len(winners)} {study.terms.kinds}; elsewhere the first was {listed(others)}."
    ]


def _runs(study: Study) -> list[str]:
    count = Counter(study.runs["status"])
    total = max(study.planned, len(study.runs))
    finished = count["done"] + count["diverged"]
    said = []
    if finished < total:
        said.append(f"Preliminary: {finished} of {total} runs have finished.")
    if count["diverged"]:
        verb = "counts" if count["diverged"] == 1 else "count"
        said.append(f"{plural(count['diverged'], 'run')} diverged and {verb} as {study.terms.worst} from there on.")
    if count["failed"]:
        said.append(f"{plural(count['failed'], 'run')} failed and {'is' if count['failed'] == 1 else 'are'} left out.")
    return said


def _no_verdict(frame: pd.DataFrame, study: Study) -> str:
    terms = study.terms
    if not study.rl:
        return f"No verdict yet: no combination has finished runs for every {terms.kind}."
    if not (frame["name"] == END).any():
        return "No verdict yet: no episode has ended in any run."
    return "No verdict yet: no run has come to its last iteration. The figures show what there is so far."


def _progress(frame: pd.DataFrame, study: Study) -> list[str]:
    """How far unfinished runs of games have come; they train for hours or days and are looked at on the way."""
    running = study.runs[~study.runs["status"].isin(FINISHED)]
    if not study.rl or running.empty:
        return []
    reached = frame.groupby("run_id", observed=True)["task_index"].max() + 1
    said = []
    for key, runs in running.groupby("task", sort=False):
        task = study.task(str(key))
        own = reached.reindex(runs["run_id"]).fillna(0).astype(int)
        low, high = int(own.min()), int(own.max())
        part = f"{low} to {high}" if low < high else str(high)
        here, whole = (n * (task.frames or 0) / 1e6 for n in (high, task.num_tasks))
        frames = f" ({here:,.3g}M of {whole:,.4g}M frames)" if task.frames else ""
        said.append(f"{task.label}: {part} of {task.num_tasks} iterations{frames}")
    more = f"; and {len(said) - 6} other games" if len(said) > 6 else ""
    return [f"Unfinished runs so far: {'; '.join(said[:6])}{more}."]
