"""One look for all figures: a colour, a dash and a marker for every combination, the same in every figure of a
study.

No mitigation is black and the fresh-network reference grey and dashed. Common single factors have fixed hues
after Okabe & Ito 2008 ("Color universal design"), so that they agree between studies. Every other combination
takes, in canonical order over all subsets of the study's factors, the candidate colour that lies furthest from
those taken; distance is the smallest one in OKLab (Ottosson 2020) among normal vision, protanopia and
deuteranopia (Machado et al. 2009, doi:10.1109/TVCG.2009.113). Dash and marker tell the number of factors and
repeat what the colour says.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any

import matplotlib as mpl
import numpy as np

from analysis.study import BESIDE, NONE, Study, split_terms

HUES = {
    "layer_norm": "#0072b2",
    "l2": "#d55e00",
    "redo": "#009e73",
    "l2_init": "#cc79a7",
    "crelu": "#56b4e9",
    "shrink_perturb": "#e69f00",
}
INK, GREY, FRESH = "#1a1a1a", "#7a7a7a", "#a8a8a8"
VERDICTS = {"reproduced": "#00735c", "not reproduced": "#c04a00", "undecided": "#6b6b6b"}
_DASHES = ("-", (0, (5, 1.4)), (0, (1.2, 1.2)), (0, (6, 1.4, 1.2, 1.4)))
_MARKERS = "osD^vPX<>p*h"
_MOST_SUBSETS = 64

RC = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 8.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#ececec",
    "grid.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "text.color": INK,
    "lines.linewidth": 1.6,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "plasticity-suite",
}


@dataclass(frozen=True)
class Look:
    """How a combination is drawn."""

    color: str
    dash: Any
    marker: str
    width: float = 1.6


@contextmanager
def styled() -> Iterator[None]:
    """matplotlib defaults with the suite's settings over them, whatever the user's own file says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield


def looks(study: Study) -> dict[str, Look]:
    """The look of every combination of a study."""
    specs = tuple(spec for spec, _ in study.factors)
    names = study.combinations
    # Colours are dealt to all subsets of the factors, run or not, so that a partial study has the final colours.
    every = (c for k in range(1, len(specs) + 1) for c in combinations(specs, k))
    subsets = ["+".join(c) for c in islice(every, _MOST_SUBSETS)]
    deal = list(dict.fromkeys([*subsets, *names]))
    colors = _deal(tuple(c for c in deal if c != NONE and not study.is_reference(c)))
    found = {}
    for c in names:
        mitigations = c.partition(BESIDE)[0]
        terms = split_terms(mitigations)
        if study.is_reference(c):
            found[c] = Look(FRESH, (0, (4, 2)), "", 1.8)
        elif c == NONE:
            found[c] = Look(INK, "-", "x", 1.6)
        else:
            found[c] = Look(colors[c], _DASHES[min(max(len(terms) - 1, 0), 3)], _MARKERS[deal.index(c) % len(_MARKERS)])
    return found


@functools.lru_cache(maxsize=16)
def _deal(names: tuple[str, ...]) -> dict[str, str]:
    """A colour for each name: fixed hues first, then the furthest candidates in turn."""
    out: dict[str, str] = {}
    for name in names:
        terms = split_terms(name) if BESIDE not in name else []
        hue = HUES.get(terms[0].partition("(")[0]) if len(terms) == 1 else None
        if hue is not None and hue not in out.values():
            out[name] = hue
    pool = _candidates()
    seen = _views(pool)
    taken = _views(np.array([_rgb(c) for c in (INK, FRESH, "#ffffff", *out.values())]))
    gap = np.full(len(pool), np.inf)
    for k in range(taken.shape[1]):
        gap = np.minimum(gap, _distance(seen, taken[:, k : k + 1]))
    for name in names:
        if name not in out:
            best = int(gap.argmax())
            out[name] = mpl.colors.to_hex(pool[best])
            gap = np.minimum(gap, _distance(seen, seen[:, best : best + 1]))
    return out


def _rgb(color: str) -> tuple[float, float, float]:
    return mpl.colors.to_rgb(color)


def _candidates() -> np.ndarray:
    """sRGB colours readable on white: OKLCH lightness 0.35-0.75, some chroma, inside the gamut. [N, 3]"""
    light, chroma, hue = np.meshgrid(
        np.linspace(0.35, 0.75, 6), [0.09, 0.14, 0.19], np.arange(0, 360, 12.0), indexing="ij"
    )
    angle = np.deg2rad(hue)
    lab = np.stack([light, chroma * np.cos(angle), chroma * np.sin(angle)], -1).reshape(-1, 3)
    cone = (lab @ np.linalg.inv(_CONE_TO_LAB).T) ** 3
    linear = cone @ np.linalg.inv(_LINEAR_TO_CONE).T
    inside = ((linear >= 0) & (linear <= 1)).all(1)
    linear = linear[inside]
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


# Ottosson 2020, "A perceptual color space for image processing" (OKLab).
_LINEAR_TO_CONE = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_CONE_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
# Machado, Oliveira & Fernandes 2009, severity 1.0, on linear RGB.
_VISIONS = (
    np.eye(3),
    np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
)


def _views(rgb: np.ndarray) -> np.ndarray:
    """OKLab coordinates of sRGB colours [N, 3] as three kinds of eyes see them: [3, N, 3]."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = [np.clip(linear @ vision.T, 0, 1) for vision in _VISIONS]
    return np.stack([np.cbrt(v @ _LINEAR_TO_CONE.T) @ _CONE_TO_LAB.T for v in seen])


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Smallest distance over kinds of eyes, weighting normal vision like the others. [N]"""
    return np.sqrt(((a - b) ** 2).sum(-1)).min(0)


def separation(colors: list[str]) -> float:
    """Smallest pairwise distance of some colours for any kind of eyes, in OKLab units (white to black is 1)."""
    seen = _views(np.array([_rgb(c) for c in colors]))
    pairs = combinations(range(len(colors)), 2)
    return float(min(_distance(seen[:, i : i + 1], seen[:, j : j + 1])[0] for i, j in pairs))
