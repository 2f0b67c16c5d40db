"""A figure on disk: PDF, PNG, the plotted numbers as CSV and a caption, the same bytes for the same records.

matplotlib would write the date and a random salt into its files; both are fixed here, so that a figure under
version control changes when its numbers do and not before.
"""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis import figures
from analysis.figures import FigureModule
from analysis.study import Study
from analysis.style import styled
from analysis.words import plural
from plasticity.record import atomic

_METADATA = {
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}
DPI = 170
_PATH = re.compile(rb'(?<= d=")[^"]*')
_DECIMALS = re.compile(rb"(\.\d\d)\d+")


def render(figure: Figure, kind: str) -> bytes:
    """The bytes of a figure as pdf, png or svg. Call inside `styled()`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=DPI, metadata=_METADATA[kind])
    data = buffer.getvalue()
    # Six decimals of a 72nd of an inch are half of an SVG's size. Glyphs are drawn to another scale and have none.
    return _PATH.sub(lambda path: _DECIMALS.sub(rb"\1", path[0]), data) if kind == "svg" else data


def digest(study: Study) -> str:
    """A short hash of the runs a study was read from: their ids and whether they had finished."""
    lines = sorted(f"{r.run_id} {r.status}" for r in study.runs[["run_id", "status"]].itertuples())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def caption(module: FigureModule, plotted: pd.DataFrame, study: Study, *, whole: bool = True) -> str:
    """Caption text: what is seen, number of seeds and, if it must stand alone, interval method and which runs."""
    text = [figures.caption(module, study)]
    if note := plotted.attrs.get("note"):
        text.append(note)
    if "n" in plotted and plotted["n"].notna().any():
        low, high = int(plotted["n"].min()), int(plotted["n"].max())
        text.append(f"n = {f'{low} to {high}' if low != high else low} seed{'s' * (high != 1)}.")
    own = getattr(module, "METHOD", None)
    if not whole:
        return " ".join([*text, own(study.level)] if own else text)
    text.append(figures.method(module, study))
    runs = study.runs["run_id"].nunique()
    text.append(f"Study {study.name}, {plural(runs, 'run')}, digest {digest(study)}.")
    return " ".join(text)


def save_figures(frame: pd.DataFrame, study: Study, out: Path, only: tuple[str, ...] = ()) -> dict[str, list[Path]]:
    """Write the figures into a folder; returns the files by figure, an empty list where there was nothing to draw."""
    written: dict[str, list[Path]] = {}
    for module in figures.discover():
        if module.NAME not in only if only else not figures.applies(module, study):
            continue
        plotted = figures.numbers(module, frame, study)
        written[module.NAME] = []
        if plotted.empty:
            continue
        with styled():
            figure = module.draw(plotted, study)
            contents = {kind: render(figure, kind) for kind in ("pdf", "png")}
        contents["csv"] = plotted.to_csv(index=False, float_format="%.8g", lineterminator="\n").encode()
        contents["txt"] = (f"{figures.title(module, study)}. {caption(module, plotted, study)}\n").encode()
        for kind, data in contents.items():
            path = out / f"{module.NAME}.{kind}"
            with atomic(path) as aside:
                aside.write_bytes(data)
            written[module.NAME].append(path)
    return written
