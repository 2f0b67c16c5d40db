"""Late diagnostics against late score, one point a run: which diagnostic goes along with lost plasticity."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from analysis import diagnostics, panels
from analysis.outcomes import late
from analysis.study import Study
from analysis.style import looks

NAME = "diagnostics_and_score"
TITLE = "Which diagnostics go along with lost plasticity"
CAPTION = (
    "Each point is a run: mean of a diagnostic at the end of the late tasks (last fifth) against the late score, "
    "with Spearman's rank correlation in the title of each panel. Runs of one combination are alike, so the "
    "correlation is mostly one between combinations: it shows association, not cause, and carries no p-value."
)
RL_TITLE = "Which diagnostics go along with the score"
RL_CAPTION = CAPTION.replace("late tasks", "late iterations")
ORDER = 60
LINES = True


def select(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    frame, note = diagnostics.first_games(frame, study)
    score = late(frame, study).rename(columns={"value": "late_score"})
    rows = diagnostics.at_end_of_task(frame)
    count = rows["task"].astype(str).map({t.key: t.num_tasks - t.late for t in study.tasks})
    rows = rows[(rows["task_index"] >= count.astype(int)) & np.isfinite(rows["value"].to_numpy(float))]
    means = rows.groupby(["run_id", "name"], observed=True)["value"].mean().reset_index()
    table = means.merge(score[["run_id", "task", "combination", "seed", "late_score"]], on="run_id")
    if table.empty:
        return table
    table["rho"] = np.nan
    for _, own in table.groupby(["name", "task"], observed=True):
        # The rank correlation of a constant is not defined.
        if len(own) >= 3 and own["value"].nunique() > 1 and own["late_score"].nunique() > 1:
            table.loc[own.index, "rho"] = spearmanr(own["value"], own["late_score"]).statistic
    table = table.sort_values(["name", "task", "combination", "seed"]).reset_index(drop=True)
    table.attrs["note"] = note
    return table


def draw(plotted: pd.DataFrame, study: Study) -> Figure:
    names, style = diagnostics.names(plotted), looks(study)
    tasks = [task for task in study.tasks if (plotted["task"] == task.key).any()]
    figure, axes = panels.matrix(len(names), len(tasks), width=2.3, height=1.75)
    for i, name in enumerate(names):
        row = plotted[plotted["name"] == name]
        for j, task in enumerate(tasks):
            ax, own = axes[i, j], row[row["task"] == task.key]
            for c in study.combinations:
                points = own[own["combination"] == c]
                look = style[c]
                cross = look.marker == "x"
                edge = {"linewidths": 0.9} if cross else {"linewidths": 0.3, "edgecolors": "white"}
                place = points["late_score"], points["value"]
                ax.scatter(*place, s=16, color=look.color, marker=look.marker or "s", alpha=0.85, **edge)
            diagnostics.scale(ax, name, row["value"])
            rho = own["rho"].iloc[0] if len(own) else np.nan
            said = f"ρ = {rho:+.2f}".replace("-", "−") if np.isfinite(rho) else "ρ undefined"
            ax.set_title(f"{task.label}\n{said}" if i == 0 else said, weight="normal")
            if i == len(names) - 1:
                ax.set_xlabel("late score")
            if j == 0:
                ax.set_ylabel(diagnostics.label(name))
    figure.align_ylabels()
    panels.legend(figure, study, plotted["combination"], lines=False)
    return figure
