"""One self-contained HTML page about a study: the verdict first, then claims, figures, all numbers, and where they
come from."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import figures, games_sections, mechanisms, page
from analysis.load import load
from analysis.published import read_published
from analysis.save import caption, digest, render
from analysis.stats import LEVEL, describe_method
from analysis.study import NONE, Study
from analysis.style import styled
from analysis.summary import Summary, summarise_study
from analysis.tables import best_by_task
from analysis.verdicts import Decided
from analysis.words import capital, number, places, plural, span
from plasticity.record import FINISHED, atomic

_UNBROKEN = re.compile(r"(?<=\d,) (?=[−+\d])|(?<=\d) (?=%)")
_JOINED = {"AllOf": "holds if all of these hold", "AnyOf": "holds if any of these holds"}
_SECTIONS = (
    ("claims", "Claims"),
    ("figures", "Figures"),
    ("pooled", "All games together"),
    ("published", "Beside published curves"),
    ("combinations", "All combinations"),
    ("mechanisms", "Mechanisms and cost"),
    ("runs", "Runs"),
    ("provenance", "Provenance"),
    ("reproduce", "How to reproduce"),
)


def write_report(
    study_dir: str | Path, out: str | Path | None = None, level: float = LEVEL, dopamine: Path | None = None
) -> Path:
    """Write the report of a study folder (or of a name under runs/); default place: report.html inside it.

    dopamine: file of published curves to compare games with. Returns the path written. Raises `UserError` if the
    folder cannot be read or the file not be written.
    """
    study, frame = load(study_dir, level)
    if dopamine is not None:
        study = replace(study, published=read_published(dopamine))
    path = Path(out) if out is not None else study.paths[0] / "report.html"
    html = build(study, frame)
    with atomic(path) as aside:
        aside.write_text(html, encoding="utf-8")
    return path


def build(study: Study, frame: pd.DataFrame) -> str:
    """The page as text."""
    summary = summarise_study(frame, study)
    parts = {
        "claims": _claims(summary),
        "figures": _figures(study, frame),
        "pooled": games_sections.pooled_games(frame, study),
        "published": games_sections.published(frame, study),
        "combinations": _combinations(summary, study),
        "mechanisms": mechanisms.section(frame, study),
        "runs": _runs(study),
        "provenance": _provenance(study),
        "reproduce": _reproduce(study),
    }
    shown = [(key, title) for key, title in _SECTIONS if parts[key]]
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title in shown)
    sections = "".join(f'<section id="{key}"><h2>{title}</h2>{parts[key]}</section>' for key, title in shown)
    return page.page(study.title, _verdict(summary, study, links) + sections + _footer(study))


def _verdict(summary: Summary, study: Study, links: str) -> str:
    scale = f"{escape(study.scale)} scale · " if study.scale else ""
    combinations = plural(len(study.combinations), "combination")
    kinds = f"{len(study.tasks)} {study.terms.kind if len(study.tasks) == 1 else study.terms.kinds}"
    facts = "".join(
        f'<div><dt>{escape(a)}</dt><dd class="value">{escape(b)}</dd><dd class="detail">{escape(c)}</dd></div>'
        for a, b, c in summary.facts
    )
    described = f'<p class="small">{escape(study.description)}</p>' if study.description else ""
    return (
        f'<header><p class="kicker">{escape(study.name)} · {scale}{combinations} · {kinds} · '
        f"{plural(study.runs['seed'].nunique(), 'seed')}</p><h1>{escape(study.title)}</h1>{described}</header>"
        f'<section id="verdict" aria-label="Verdict"><p class="headline">{_prose(summary.headline)}</p>'
        f'<dl class="facts">{facts}</dl><div class="text">'
        + "".join(f"<p>{_prose(sentence)}</p>" for sentence in summary.paragraphs)
        + f"</div></section><nav aria-label='Sections'>{links}</nav>"
    )


def _prose(text: str) -> str:
    """Text that breaks neither inside an interval nor before a percent sign."""
    return _UNBROKEN.sub("\u00a0", escape(text))


def _claims(summary: Summary) -> str:
    if not summary.claims:
        return ""
    rows, kinds = [], []
    for decided in summary.claims:
        claim, test = decided.claim, decided.test
        single = test.estimate is not None
        under = f"{escape(test.name)}: {_condition(test)}" if single else _JOINED[test.kind]
        under = f'<div class="small">{under}</div>'
        words = f'{escape(claim.statement)} <span class="small">{escape(claim.source)}</span>{under}'
        rows.append([escape(claim.id), words, page.chip(decided.verdict), *(_numbers(test) if single else [""] * 3)])
        kinds.append("")
        if not single:
            _part_rows(test, rows, kinds)
    text = (
        "<p>A claim is reproduced if the whole interval of its contrast lies on the claimed side of the margin, not "
        "reproduced if it lies on the other side, and undecided if it contains the margin or fewer than three seeds "
        "are complete. Contrasts are paired by seed. Where any of several parts may do, intervals are widened.</p>"
    )
    head = ["Claim", "Statement and contrasts", "Verdict", "Estimate", "Interval", "Seeds"]
    title = "Claims with their verdicts"
    return text + page.table(head, rows, caption=title, numeric=(3, 4, 5), classes="claims", row_classes=kinds)


def _part_rows(test: Decided, rows: list[list[str]], kinds: list[str], depth: int = 1) -> None:
    for part in test.parts:
        contrast = part.estimate is not None
        under = _condition(part) if contrast else _JOINED[part.kind]
        words = f'{escape(part.name)}<div class="small">{under}</div>'
        words = f'<div style="padding-left:{depth}em">{words}</div>'
        rows.append(["", words, page.chip(part.verdict), *(_numbers(part) if contrast else [""] * 3)])
        kinds.append("part")
        _part_rows(part, rows, kinds, depth + 1)


def _condition(part: Decided) -> str:
    """What is claimed of a contrast, and what to know about it."""
    sign = "above" if part.claimed == "greater" else "below"
    note = f"; {part.note}" if part.note else ""
    return escape(f"claimed {sign} {part.margin:g}{note}")


def _numbers(part: Decided) -> list[str]:
    e = part.estimate
    assert e is not None
    level = f'<div class="small">{100 * e.level:.4g} %</div>'
    value = number(e.value, places(e.low, e.high), signed=True)
    return [value, span(e.low, e.high, signed=True) + level, str(e.n)]


def _figures(study: Study, frame: pd.DataFrame) -> str:
    found, nothing = [f'<p class="small">{escape(describe_method(study.level, study.terms.worst_at_length))}</p>'], []
    for module in figures.discover():
        if not figures.applies(module, study):
            continue
        plotted = figures.numbers(module, frame, study)
        if plotted.empty:
            nothing.append(figures.title(module, study))
            continue
        with styled():
            drawn = module.draw(plotted, study)
            svg = render(drawn, "svg")
        title, seen = figures.title(module, study), figures.caption(module, study)
        alt = f"{title}. {seen} The plotted numbers are written by: python -m analysis figures."
        text, inches = caption(module, plotted, study, whole=False), drawn.get_figwidth()
        found.append(page.figure(svg, name=module.NAME, title=title, alt=alt, caption=text, inches=inches))
    if nothing:
        found.append(f'<p class="small">Nothing recorded to draw: {escape(", ".join(nothing))}.</p>')
    return "".join(found)


def _combinations(summary: Summary, study: Study) -> str:
    table, best = summary.table, best_by_task(summary.table, study)
    if table.empty:
        return "<p>There are no late scores yet: no run has finished.</p>"
    tasks = [task for task in study.tasks if (table["task"] == task.key).any()]
    cells = {(r.task, r.combination): r for r in table.itertuples()}
    over_all = {s.combination: s for s in summary.ranking.standings}
    rows, bold = [], {}
    usual = int(table["n"].max()) if len(table) else 0
    first = 3 if study.comparable else 1
    ranked = list(over_all)
    rest = [c for c in study.combinations if c not in over_all]
    for i, c in enumerate([*ranked, *rest]):
        row = [escape(study.label(c))]
        standing = over_all.get(c)
        score = standing.score if standing else summary.ranking.references.get(c)
        gain = standing.gain if standing else None
        if study.comparable:
            n = score.n if score and score.n < usual else None
            row.append(_cell(score.value, score.low, score.high, n) if score else "–")
            row.append(_cell(gain.value, gain.low, gain.high, None, signed=True) if gain else "–")
        for j, task in enumerate(tasks):
            r: Any = cells.get((task.key, c))
            row.append(_cell(r.value, r.low, r.high, r.n if r.n < usual else None) if r is not None else "–")
            if best.get(task.key) == c:
                bold[i, j + first] = "best"
        rows.append(row)
    terms = study.terms
    over = [f"All {terms.kinds}", f"Gain over {study.label(NONE)}"] if study.comparable else []
    head = ["Combination", *over, *(escape(t.label) for t in tasks)]
    text = (
        f"Late score with interval from {plural(usual, 'seed')} (n where there are fewer); "
        f"best of each {terms.kind} in bold"
    )
    if not study.comparable:
        text += ". Raw returns of different games have no common scale, so none are averaged over games"
    elif any(s.gain for s in summary.ranking.standings):
        text += ". Gains are paired by seed and their intervals widened for the number of comparisons"
    return page.table(head, rows, caption=text, numeric=range(1, len(head)), cell_classes=bold)


def _cell(value: float, low: float, high: float, n: int | None, signed: bool = False) -> str:
    seeds = f" · n {n}" if n is not None else ""
    shown = number(value, places(low, high, value), signed=signed)
    return f'{shown}<div class="small">{span(low, high, signed=signed)}{seeds}</div>'


def _runs(study: Study) -> str:
    runs = study.runs
    count = runs["status"].value_counts()
    missing = max(study.planned - len(runs), 0)
    said = [f"{n} {status}" for status, n in count.items()] + [f"{missing} planned but without any record"] * bool(
        missing
    )
    odd = runs[~runs["status"].isin(["done"])].sort_values(["status", "task", "mitigations", "seed"])
    text = f"<p>{escape('; '.join(said))}.</p>"
    if odd.empty:
        return text
    effects = dict.fromkeys(FINISHED, f"{study.terms.worst} from there on") | {"running": "in the curves only, so far"}
    rows = []
    for r in odd.to_dict("records"):
        effect = effects.get(r["status"], "left out")
        why = escape((r["error"].strip().splitlines() or [""])[-1][:300]) if isinstance(r["error"], str) else ""
        where = [escape(study.task(r["task"]).label), escape(study.label(r["combination"])), str(r["seed"])]
        rows.append([f"<code>{escape(r['run_id'])}</code>", *where, escape(r["status"]), effect, why])
    head = ["Run", capital(study.terms.kind), "Combination", "Seed", "Status", "In the numbers", "Error"]
    shown = page.table(head, rows[:200], caption="Runs that did not simply finish", numeric=(3,))
    more = f'<p class="small">and {len(rows) - 200} more.</p>' if len(rows) > 200 else ""
    return text + shown + more


def _provenance(study: Study) -> str:
    if not study.provenance:
        return ""
    values: dict[str, dict[str, list[str]]] = {}
    for group, record in study.provenance:
        for key, value in _flat(record if isinstance(record, dict) else {"provenance": record}):
            values.setdefault(key, {}).setdefault(value, []).append(group)
    rows = []
    for key, found in values.items():
        lines = []
        for value, groups in list(found.items())[:12]:
            which = (
                ""
                if len(found) == 1
                else f' <span class="small">{escape(", ".join(groups[:4]))}{" …" * (len(groups) > 4)}</span>'
            )
            lines.append(f"<div><code>{escape(value)}</code>{which}</div>")
        more = f'<div class="small">and {len(found) - 12} other values</div>' if len(found) > 12 else ""
        rows.append([escape(key), "".join(lines) + more])
    many = len(study.provenance)
    title = f"Provenance of {many} group{'s' * (many > 1)} of runs; a value without a group holds for all"
    return page.table(["Key", "Value"], rows, caption=title)


def _flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested provenance as dotted keys and texts."""
    out: list[tuple[str, str]] = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            out += _flat(item, f"{prefix}{key}.")
        elif isinstance(item, list) and all(isinstance(x, str) for x in item):
            out.append((f"{prefix}{key}", shlex.join(item) if key == "argv" else ", ".join(item)))
        else:
            out.append((f"{prefix}{key}", item if isinstance(item, str) else json.dumps(item)))
    return out


def _reproduce(study: Study) -> str:
    lines = [shlex.join(command) for command in study.commands]
    lines.append(shlex.join(["python", "-m", "analysis", "report", *dict.fromkeys(p.name for p in study.paths)]))
    specs = "".join(f"<li>{escape(t.label)}: <code>{escape(t.spec)}</code></li>" for t in study.tasks if t.spec)
    tasks = f"<p>{capital(study.terms.kinds)}, as spec text:</p><ul>{specs}</ul>" if specs else ""
    return f"<p>From a clone of the suite:</p><pre>{escape(chr(10).join(lines))}</pre>{tasks}"


def _footer(study: Study) -> str:
    return (
        f"<footer>{plural(study.runs['run_id'].nunique(), 'run')}, digest <code>{digest(study)}</code>. "
        "The same records give the same page, byte for byte.</footer>"
    )
