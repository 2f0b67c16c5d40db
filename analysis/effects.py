"""The effect of each single mitigation in a study, for the table of the library (`plasticity list mitigations`)."""

from __future__ import annotations

import pandas as pd

from analysis.outcomes import late, paired
from analysis.stats import summarise
from analysis.study import BESIDE, NONE, Study, split_terms
from analysis.verdicts import FEWEST_SEEDS
from plasticity.measured import Effect


def effects(frame: pd.DataFrame, study: Study) -> list[Effect]:
    """Gain of every combination over the same one without one of its members, paired by seed, by task kind.

    Only members that were added to nothing, or to one other mitigation, with complete late windows of three seeds or
    more.
    """
    values = late(frame, study)
    present = set(values["combination"].unique())
    found: list[Effect] = []
    for combination in study.combinations:
        if BESIDE in combination or study.is_reference(combination) or combination not in present:
            continue
        terms = split_terms(combination)
        if not 1 <= len(terms) <= 2:
            continue
        for term in terms:
            rest = "+".join(t for t in terms if t != term) or NONE
            if rest not in present:
                continue
            table = summarise(paired(values, combination, rest), ["task"], level=study.level)
            for row in table[table["n"] >= FEWEST_SEEDS].itertuples():
                where = study.task(str(row.task)).label.lower()
                numbers = (round(float(getattr(row, x)), 4) for x in ("value", "low", "high"))
                name = term.partition("(")[0]
                label = f"{study.name}, {study.scale} scale" if study.scale else study.name
                found.append(Effect(name, term, where, rest, *numbers, int(row.n), label))  # pyrefly: ignore
    return found
