"""The figures, discovered from this folder: a new figure is a new file, and no list is edited.

A figure is a module with

    NAME      file name without ending              TITLE     heading, in words
    CAPTION   what is seen, one or two sentences    ORDER     place in the report, small first
    KIND      only for "rl" or only for "supervised" studies; left out: for both
    RL_TITLE, RL_CAPTION                            the same for reinforcement learning, where it must read otherwise
    LINES     True where each combination is a line: many of them are then thinned out (`analysis.lines`)
    METHOD    what intervals are, where not those of `analysis.stats`; a function of the level
    select(frame, study) -> DataFrame               the numbers that are drawn; empty if there is nothing to draw
    draw(plotted, study) -> Figure                  draws those numbers and nothing else

The numbers may carry `attrs["note"]`, a sentence for the caption that depends on them. `analysis.save` writes the
figure, the numbers and the caption.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Protocol

import pandas as pd
from matplotlib.figure import Figure

from analysis.lines import few
from analysis.stats import describe_method
from analysis.study import Study


class FigureModule(Protocol):
    """What a module of this folder must have."""

    NAME: str
    TITLE: str
    CAPTION: str
    ORDER: int

    def select(self, frame: pd.DataFrame, study: Study) -> pd.DataFrame: ...

    def draw(self, plotted: pd.DataFrame, study: Study) -> Figure: ...


def discover() -> list[FigureModule]:
    """All figures, in the order of the report."""
    modules = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    return sorted((m for m in modules if hasattr(m, "NAME")), key=lambda m: (m.ORDER, m.NAME))  # pyrefly: ignore


def applies(module: FigureModule, study: Study) -> bool:
    """Whether a figure is one for this kind of study."""
    return getattr(module, "KIND", None) in (None, "rl" if study.rl else "supervised")


def numbers(module: FigureModule, frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The numbers that a figure draws; empty if there is nothing to draw."""
    note = ""
    if getattr(module, "LINES", False):
        frame, note = few(frame, study)
    plotted = module.select(frame, study)
    if note:
        plotted.attrs["note"] = " ".join(filter(None, (plotted.attrs.get("note"), note)))
    return plotted


def title(module: FigureModule, study: Study) -> str:
    """The heading, in the words of the study."""
    return getattr(module, "RL_TITLE", module.TITLE) if study.rl else module.TITLE


def caption(module: FigureModule, study: Study) -> str:
    """What is seen, in the words of the study."""
    return getattr(module, "RL_CAPTION", module.CAPTION) if study.rl else module.CAPTION


def method(module: FigureModule, study: Study) -> str:
    """What lines and intervals are."""
    if own := getattr(module, "METHOD", None):
        return own(study.level)
    return describe_method(study.level, study.terms.worst_at_length)
