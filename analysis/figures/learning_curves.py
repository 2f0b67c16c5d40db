"""End-of-task score against the task index. A line that falls below the grey one has lost plasticity."""

import pandas as pd
from matplotlib.figure import Figure

from analysis import curves
from analysis.study import Study

NAME = "learning_curves"
TITLE = "How well each new task is learned"
CAPTION = (
    "Score at the end of each task against the number of tasks already seen, one panel a task kind. The grey "
    "dashes are a network re-initialised at every task: a line that sinks below them has lost plasticity."
)
ORDER = 10


def select(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    return curves.select(frame, study, "end_score")


def draw(plotted: pd.DataFrame, study: Study) -> Figure:
    return curves.draw(plotted, study)
