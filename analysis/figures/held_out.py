"""Score on examples that are never trained on, against the task index: whether what is learned generalises."""

import pandas as pd
from matplotlib.figure import Figure

from analysis import curves
from analysis.study import Study

NAME = "held_out"
TITLE = "How well each new task generalises"
CAPTION = (
    "Score at the end of each task on examples that are never trained on, against the number of tasks already seen. "
    "The distance to the grey dashes, a network re-initialised at every task, is what the warm start costs."
)
ORDER = 15
LINES = True
KIND = "supervised"


def select(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    return curves.select(frame, study, "test_score")


def draw(plotted: pd.DataFrame, study: Study) -> Figure:
    return curves.draw(plotted, study, "score on held-out examples")
