"""The figures, discovered from this folder: a new figure is a new file, and no list is edited.

A figure is a module with

    NAME      file name without ending              TITLE     heading, in words
    CAPTION   what is seen, one or two sentences    ORDER     place in the report, small first
    select(frame, study) -> DataFrame               the numbers that are drawn; empty if there is nothing to draw
    draw(plotted, study) -> Figure                  draws those numbers and nothing else

`analysis.save` writes the figure, the numbers and the caption.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Protocol

import pandas as pd
from matplotlib.figure import Figure

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
