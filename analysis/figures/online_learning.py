"""Online score (mean over all steps of a task) against the task index: how fast, not only how far."""

import pandas as pd
from matplotlib.figure import Figure

from analysis import curves
from analysis.study import Study

NAME = "online_learning"
TITLE = "How fast each new task is learned"
CAPTION = (
    "Online score, the mean over all steps of a task, against the number of tasks already seen. It falls earlier "
    "than the end-of-task score where a network still learns, but more slowly. Thin grey lines, where there are any, "
    "are predictions that need no network."
)
ORDER = 20
LINES = True
KIND = "supervised"


def select(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    return curves.with_baselines(curves.select(frame, study, "online_score"), frame)


def draw(plotted: pd.DataFrame, study: Study) -> Figure:
    return curves.draw(plotted, study, "online score")
