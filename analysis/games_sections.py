"""Sections of the report that only games have: aggregates over games, and the comparison with published curves."""

from __future__ import annotations

import math
from html import escape

import pandas as pd

from analysis import page, pooled
from analysis.compare import DEVIATIONS, WIDENED, compare
from analysis.games import STATISTICS, aggregates
from analysis.returns import RETURN, atari
from analysis.study import Study
from analysis.words import digits_for, listed, number, places, plural, span


def pooled_games(frame: pd.DataFrame, study: Study) -> str:
    """Table of the late human-normalised score over all games; empty with fewer than two of them."""
    if len(atari(study)) < 2:
        return ""
    table = aggregates(frame, study)
    if table.empty:
        return "<p>No combination has a finished run of every game yet.</p>"
    rows = []
    for c, own in table.groupby("combination", sort=False):
        cells = {r["statistic"]: r for r in own.to_dict("records")}
        shown = [_cell(cells[name]["value"], cells[name]["low"], cells[name]["high"]) for name in STATISTICS]
        rows.append([escape(study.label(str(c))), *shown, str(int(own["n"].iloc[0]))])
    text = (
        "<p>Late human-normalised score: 0 is random play, 1 a human. IQM pools runs and games, median and mean are "
        "over games; the optimality gap is how far runs fall short of a human, so lower is better. Combinations that "
        f"lack a game are left out.</p><p class='small'>{escape(pooled.describe(study.level))}</p>"
    )
    head = ["Combination", *STATISTICS, "Runs"]
    caption = f"Aggregates over {int(table['games'].iloc[0])} games"
    return text + page.table(head, rows, caption=caption, numeric=range(1, len(head)))


def published(frame: pd.DataFrame, study: Study) -> str:
    """Our returns beside Dopamine's at some numbers of frames; empty unless the user pointed to their curves."""
    if study.published is None:
        return ""
    table = compare(frame, study)
    if table.empty:
        return f"<p>{escape(_nothing(frame, study))}</p>"
    rows = []
    for r in table.to_dict("records"):
        ours = f'{_number(r["value"])}<div class="small">{plural(int(r["n"]), "seed")}</div>'
        theirs = f'{_number(r["mean"])}<div class="small">sd {_number(r["sd"])}</div>'
        band = span(r["low"], r["high"], digits_for([r["mean"]]))
        place = [escape(study.task(r["task"]).label), escape(study.label(r["combination"])), f"{r['frames']}M"]
        rows.append([*place, ours, theirs, band, "inside" if r["inside"] else "outside"])
    inside = int(table["inside"].sum())
    protocols = sorted({str(c.get("protocol", "not recorded")) for c in study.runs["config"]})
    text = (
        f"{inside} of {plural(len(table), 'point')} lie inside the published band: mean and {DEVIATIONS:g} standard "
        f"deviations of 5 seeds, widened to at least {100 * WIDENED:.0f} % of the mean. Inside means that no "
        "difference is shown, which with few seeds of ours says little; a point outside is a reason to look for the "
        "cause, and among many points some fall outside by chance. Neighbouring points of one game are not "
        "independent. Published are training returns with sticky actions (0.25) and whole games as episodes, of "
        "Dopamine's DQN (Adam, squared error) and of its Rainbow (C51, n-step returns, prioritised replay; not noisy, "
        "dueling or double). Runs under another protocol are not comparable; these ran under: "
        f"{listed(protocols)}. The first million frames are close to random for every agent, so the first point is "
        "at 5M."
    )
    head = ["Game", "Combination", "Frames", "Ours (mean)", "Published (mean)", "Band", "Ours lies"]
    caption = "Training return of the last 1M frames before each point, ours and Dopamine's"
    return f"<p>{escape(text)}</p>" + page.table(head, rows, caption=caption, numeric=(2, 3, 4, 5))


def _nothing(frame: pd.DataFrame, study: Study) -> str:
    """Why there is nothing to compare."""
    if not atari(study):
        return "The published curves are of single Atari games; this study has none."
    if not (frame["name"] == RETURN).any():
        return "No episode has ended yet, so there is nothing to set beside the published curves."
    return (
        "Nothing to compare yet: the first point is at 5M frames, and curves are published for the agents dqn and "
        "rainbow on 55 of the 57 usual games."
    )


def _number(value: float) -> str:
    """A raw return in three or four digits."""
    return number(value, digits_for([value]))


def _cell(value: float, low: float, high: float) -> str:
    below = span(low, high) if math.isfinite(low) else "one run a game"
    return f'{number(value, places(low, high, value))}<div class="small">{below}</div>'
