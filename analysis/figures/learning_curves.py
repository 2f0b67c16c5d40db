"""End-of-task score against the task index. A line that falls below the grey one has lost plasticity."""

import pandas as pd
from matplotlib.figure import Figure

from analysis import curves
from analysis.returns import RETURN
from analysis.study import Study

NAME = "learning_curves"
TITLE = "How well each new task is learned"
CAPTION = (
    "Score at the end of each task against the number of tasks already seen, one panel a task kind. The grey "
    "dashes are a network re-initialised at every task: a line that sinks below them has lost plasticity."
)
RL_TITLE = "How the score grows"
RL_CAPTION = (
    "Mean score of the training episodes that ended in an iteration against environment frames, one panel a game "
    "(human-normalised: 0 is random play, 1 a human). Grey dashes, where there are any, are a network "
    "re-initialised at every switch."
)
ORDER = 10
LINES = True


def select(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    if study.rl and (frame["name"] == RETURN).any():
        # A score that is the raw return is drawn as such: the figure would be the same twice.
        frame = frame[frame["task"].isin([t.key for t in study.tasks if t.normalised])]
    return curves.select(frame, study, "end_score")


def draw(plotted: pd.DataFrame, study: Study) -> Figure:
    return curves.draw(plotted, study)
