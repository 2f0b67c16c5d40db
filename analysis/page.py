"""HTML of the report: escaping, tables, embedded images and the style sheet. No script, no font, no link to
anywhere.

Reads on paper, on a phone and in dark mode. Figures keep a white card in dark mode, because their colours are
chosen for white.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

STYLE = """
:root{color-scheme:light dark;--ink:#1c1c1a;--soft:#5d5d58;--line:#dedbd3;--paper:#fbfaf7;--card:#fff;
--accent:#0b5c8a;
--good:#00664f;--good-bg:#e2f3ec;--bad:#9c3a00;--bad-bg:#fbe9dd;--open:#55554f;--open-bg:#eeece6}
@media (prefers-color-scheme:dark){:root{--ink:#e9e7e1;--soft:#a9a69d;--line:#3a3935;--paper:#171715;--card:#20201d;
--accent:#7cc0ea;--good:#7fdcbc;--good-bg:#123a2f;--bad:#ffb287;--bad-bg:#45220d;--open:#c9c6bd;--open-bg:#33322e}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
font:17px/1.58 Charter,'Bitstream Charter','Sitka Text',Cambria,Georgia,serif}
main{max-width:1000px;margin:0 auto;padding:2.6rem 1.3rem 5rem}
.text,header,section>p,section>h2{max-width:44rem}
h1{font-size:1.15rem;line-height:1.3;font-weight:600;margin:.1rem 0 0;color:var(--soft)}
h2{font-size:1.3rem;line-height:1.25;margin:3.4rem 0 .7rem;padding-top:1.1rem;border-top:1px solid var(--line);
max-width:none!important}
h3{font-size:1.08rem;margin:0 0 .5rem}
p{margin:.55rem 0}
.kicker,.facts dt,th,.chip,figcaption,.small,nav,footer{
font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
.kicker{font-size:.74rem;letter-spacing:.08em;text-transform:uppercase;color:var(--soft);margin:0}
.headline{font-size:clamp(1.5rem,4.4vw,2.15rem);line-height:1.24;font-weight:600;letter-spacing:-.01em;
margin:1.3rem 0 1.1rem;max-width:50rem}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:1px;background:var(--line);
border:1px solid var(--line);border-radius:8px;overflow:hidden;margin:1.5rem 0 1.4rem}
.facts div{background:var(--card);padding:.85rem 1rem}
.facts dt{font-size:.76rem;color:var(--soft)}
.facts dd{margin:0;font-variant-numeric:tabular-nums}
.facts dd.value{font-size:1.7rem;line-height:1.25;font-weight:600}
.facts dd.detail{font-size:.84rem;color:var(--soft)}
nav{font-size:.85rem;margin:1.4rem 0 0;display:flex;flex-wrap:wrap;gap:.2rem 1.1rem}
a{color:var(--accent);text-underline-offset:.15em}
.wide{overflow-x:auto;-webkit-overflow-scrolling:touch;margin:.9rem 0}
.wide:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums;line-height:1.42}
caption{text-align:left;font-size:.84rem;color:var(--soft);padding-bottom:.5rem;caption-side:top}
th,td{text-align:left;vertical-align:top;padding:.5rem .75rem .5rem 0;border-bottom:1px solid var(--line)}
thead th{font-size:.75rem;font-weight:600;color:var(--soft);vertical-align:bottom;line-height:1.3}
tbody th{font-weight:600;font-size:.84rem}
td.num,th.num{text-align:right}
td.num{white-space:nowrap}
td .small,.small{font-size:.78rem;color:var(--soft);line-height:1.4}
tr.part td,tr.part th{border-bottom-style:dotted;font-weight:400}
tr.part th{padding-left:1.1rem}
td.best{font-weight:700}
.chip{display:inline-block;white-space:nowrap;font-size:.75rem;font-weight:600;padding:.1rem .55rem;
border-radius:1rem}
.reproduced{color:var(--good);background:var(--good-bg)}
.not-reproduced{color:var(--bad);background:var(--bad-bg)}
.undecided{color:var(--open);background:var(--open-bg)}
figure{margin:2.2rem 0}
figure .wide{background:#fff;border:1px solid var(--line);border-radius:8px;padding:.9rem}
figure img{display:block;width:100%;height:auto;margin:0 auto}
figcaption{font-size:.82rem;line-height:1.5;color:var(--soft);max-width:50rem}
code,pre{font-family:ui-monospace,'SF Mono',Menlo,Consolas,monospace;font-size:.82rem}
td code{overflow-wrap:anywhere}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.8rem 1rem;overflow-x:auto}
details{margin:.6rem 0}summary{cursor:pointer}
footer{margin-top:3.5rem;font-size:.8rem;color:var(--soft)}
@media (max-width:640px){body{font-size:16px}main{padding-top:1.6rem}figure img{min-width:var(--w)}
.claims{min-width:640px}}
@media print{body{background:#fff}figure,tr{break-inside:avoid}nav{display:none}}
"""


def chip(verdict: str) -> str:
    """A verdict as a coloured word."""
    return f'<span class="chip {verdict.replace(" ", "-")}">{escape(verdict)}</span>'


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, numeric: Sequence[int] = (),
    classes: str = "", row_classes: Sequence[str] = (), cell_classes: dict[tuple[int, int], str] | None = None,
) -> str:  # fmt: skip
    """A table; cells are HTML already. The first cell of a row is its header. Scrolls by itself if too wide."""
    cell_classes = cell_classes or {}

    def attributes(row: int, column: int) -> str:
        names = ["num"] * (column in numeric) + [cell_classes.get((row, column), "")]
        return f' class="{" ".join(names).strip()}"' if any(names) else ""

    top = "".join(f'<th scope="col"{attributes(-1, j)}>{h}</th>' for j, h in enumerate(head))
    body = []
    for i, row in enumerate(rows):
        cells = "".join(f"<td{attributes(i, j)}>{cell}</td>" for j, cell in enumerate(row) if j)
        kind = f' class="{row_classes[i]}"' if i < len(row_classes) and row_classes[i] else ""
        body.append(f'<tr{kind}><th scope="row"{attributes(i, 0)}>{row[0]}</th>{cells}</tr>')
    style = f' class="{classes}"' if classes else ""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption, quote=True)}"><table{style}>'
        f"<caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def figure(svg: bytes, *, name: str, title: str, alt: str, caption: str, inches: float) -> str:
    """A figure with heading and caption, the image inside the page. inches: its width, so that text stays legible."""
    data = base64.b64encode(svg).decode()
    return (
        f'<figure id="{escape(name, quote=True)}"><h3>{escape(title)}</h3>'
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(title, quote=True)}">'
        f'<img style="--w:{round(62 * inches)}px;max-width:{round(110 * inches)}px" alt="{escape(alt, quote=True)}" '
        f'src="data:image/svg+xml;base64,{data}"></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def page(title: str, body: str) -> str:
    """The whole document."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )
