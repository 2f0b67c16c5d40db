"""The central table: late score of every combination on every task kind, and its distance from a fresh network."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.outcomes import late, paired
from analysis.stats import summarise
from analysis.study import NONE, Study

COLUMNS = ["task", "combination", "value", "low", "high", "n"]


def late_table(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """One row a task kind and combination: late score with interval and number of seeds, and paired differences.

    gap: minus the fresh-network reference; gain: minus no mitigation; each with _low and _high, NaN if none.
    """
    values = late(frame, study)
    table = summarise(values, ["task", "combination"], level=study.level)
    for task in study.tasks:
        own = table["task"] == task.key
        table.loc[own, ["low", "high"]] = task.clipped(table.loc[own])[["low", "high"]]
    for name, base in (("gap", study.reference), ("gain", NONE)):
        found = []
        for c in study.combinations:
            if base is not None and c != study.sibling(c, base):
                found.append(paired(values, c, study.sibling(c, base)).assign(combination=c))
        differences = pd.concat(found) if found else values.iloc[:0]
        own = summarise(differences, ["task", "combination"], level=study.level)
        own = own.rename(columns={"value": name, "low": f"{name}_low", "high": f"{name}_high"})
        table = table.merge(own.drop(columns="n"), on=["task", "combination"], how="left")
    ranks = {c: i for i, c in enumerate(study.combinations)}
    places = {t.key: i for i, t in enumerate(study.tasks)}
    order = np.lexsort([table["combination"].map(ranks).astype(int), table["task"].map(places).astype(int)])
    return table.iloc[order].reset_index(drop=True)


def best_by_task(table: pd.DataFrame, study: Study) -> dict[str, str]:
    """The combination with the highest late score on each task kind, the reference left out."""
    rivals = table[np.array([not study.is_reference(c) for c in table["combination"]], bool)]
    top = rivals.loc[rivals.groupby("task", observed=True)["value"].idxmax()] if len(rivals) else rivals
    return {str(t): str(c) for t, c in zip(top["task"], top["combination"], strict=True)}
