"""Command line: `python -m analysis figures | report | table | verdict | effects | export STUDY`.

STUDY is a folder, or the name of a study under `runs/`. Wrong input is one message on stderr and exit code 2.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.status import Status
from rich.table import Table

from analysis.stats import LEVEL
from plasticity.errors import UserError

Level = Annotated[float, tyro.conf.arg(help="Level of all intervals, as a fraction between 0 and 1.")]
Dopamine = Annotated[
    Path | None,
    tyro.conf.arg(
        help="npz of Dopamine's published Atari curves, to draw behind those of Atari studies. Default: none."
    ),
]
One = Annotated[
    tyro.conf.Positional[str], tyro.conf.arg(metavar="STUDY", help="Study folder, or the name of a study under runs/.")
]


@dataclass(frozen=True)
class Figures:
    """Draw all figures as PDF and PNG (170 dots per inch), each with its numbers (CSV) and a caption (txt)."""

    study: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="STUDY...", help="Study folders, or names under runs/; several are read together."),
    ]
    out: Annotated[Path | None, tyro.conf.arg(help="Folder to write to. Default: figures/ inside the first study.")] = (
        None
    )
    only: Annotated[tuple[str, ...], tyro.conf.arg(help="Names of figures to draw. Default: all.")] = ()
    dopamine: Dopamine = None
    level: Level = LEVEL

    def run(self, console: Console) -> None:
        from analysis.figures import discover
        from analysis.load import load
        from analysis.published import read_published
        from analysis.save import save_figures
        from plasticity.errors import unknown

        names = [m.NAME for m in discover()]
        for name in self.only:
            if name not in names:
                raise unknown("figure", name, names)
        with _busy("reading"):
            study, frame = load(self.study, self.level)
            if self.dopamine is not None:
                study = replace(study, published=read_published(self.dopamine))
        folder = self.out or study.paths[0] / "figures"
        with _busy("drawing figures (a few seconds each)"):
            written = save_figures(frame, study, folder, self.only)
        for name, paths in written.items():
            console.print(f"{name}: " + (", ".join(p.name for p in paths) or "nothing recorded to draw"))
        console.print(f"written to {folder}", soft_wrap=True)


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page: verdict, claims, figures, all numbers, provenance."""

    study: One
    out: Annotated[Path | None, tyro.conf.arg(help="File to write. Default: report.html inside the study.")] = None
    dopamine: Dopamine = None
    level: Level = LEVEL

    def run(self, console: Console) -> None:
        from analysis.report import write_report

        with _busy("reading, deciding and drawing (up to a minute for large studies)"):
            path = write_report(self.study, self.out, self.level, self.dopamine)
        console.print(f"written to {path}", soft_wrap=True)


@dataclass(frozen=True)
class Effects:
    """Write the effect of every single mitigation as JSON, as `plasticity list mitigations` shows it."""

    study: One
    out: Annotated[Path | None, tyro.conf.arg(help="File to write. Default: effects.json inside the study.")] = None
    level: Level = LEVEL

    def run(self, console: Console) -> None:
        from analysis.effects import effects
        from analysis.load import load
        from plasticity.measured import write

        study, frame = load(self.study, self.level)
        path = self.out or study.paths[0] / "effects.json"
        write(path, effects(frame, study))
        console.print(f"written to {path}", soft_wrap=True)


@dataclass(frozen=True)
class ShowTable:
    """Show the late score of every combination on every task kind or game (last fifth of the tasks or iterations)."""

    study: One
    csv: Annotated[bool, tyro.conf.arg(help="Print all numbers as CSV instead of a table.")] = False
    level: Level = LEVEL

    def run(self, console: Console) -> None:
        from analysis.load import load
        from analysis.tables import best_by_task, late_table
        from analysis.words import number, places, span

        study, frame = load(self.study, self.level)
        table = late_table(frame, study)
        if self.csv:
            print(table.to_csv(index=False, float_format="%.6g", lineterminator="\n"), end="")
            return
        best = best_by_task(table, study)
        shown = Table(title=f"{study.title}: late score", caption="interquartile mean over seeds, interval, seeds")
        shown.add_column("combination")
        for task in study.tasks:
            shown.add_column(task.label, justify="right")
        cells = {(r.task, r.combination): r for r in table.itertuples()}
        for c in study.combinations:
            row = [study.label(c)]
            for task in study.tasks:
                r = cells.get((task.key, c))
                text = f"{number(r.value, places(r.low, r.high, r.value))}\n{span(r.low, r.high)} n={r.n}" if r else "-"  # pyrefly: ignore
                row.append(f"[bold]{_plain(text)}[/bold]" if best.get(task.key) == c else _plain(text))
            shown.add_row(*row, end_section=c == study.combinations[-1])
        console.print(shown)


@dataclass(frozen=True)
class ShowVerdict:
    """Decide the claims of a study and say which combination was best. Exit code 0 whatever the verdict."""

    study: One
    level: Level = LEVEL

    def run(self, console: Console) -> None:
        from analysis.load import load
        from analysis.summary import summarise_study
        from analysis.words import estimate

        study, frame = load(self.study, self.level)
        summary = summarise_study(frame, study)
        console.print(_plain(summary.headline), style="bold")
        for paragraph in summary.paragraphs:
            console.print(_plain(paragraph))
        for decided in summary.claims:
            console.print()
            console.print(
                f"[bold]{_plain(decided.claim.id)}  {decided.verdict}[/bold]  {_plain(decided.claim.statement)}"
            )
            for leaf in decided.test.leaves():
                e, side = leaf.estimate, "above" if leaf.claimed == "greater" else "below"
                assert e is not None
                numbers = estimate(e, signed=True)
                note = f"; {leaf.note}" if leaf.note else ""
                line = f"  {leaf.name}: {numbers}, n={e.n}, claimed {side} {leaf.margin:g}: {leaf.verdict}{note}"
                console.print(_plain(line))


@dataclass(frozen=True)
class Export:
    """Pack a study for sharing: metrics.parquet (every recorded row), runs.csv, late_scores.csv."""

    study: One
    out: Annotated[Path, tyro.conf.arg(help="Folder to write to.")]
    level: Level = LEVEL

    def run(self, console: Console) -> None:
        from analysis.export import write_export

        for path in write_export(self.study, self.out, self.level):
            console.print(f"written {path}", soft_wrap=True)


Command = (
    Annotated[Figures, tyro.conf.subcommand("figures")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Effects, tyro.conf.subcommand("effects")]
    | Annotated[ShowTable, tyro.conf.subcommand("table")]
    | Annotated[ShowVerdict, tyro.conf.subcommand("verdict")]
    | Annotated[Export, tyro.conf.subcommand("export")]
)


def _busy(what: str) -> Status:
    """A spinner on stderr while something takes its time; nothing where there is no terminal."""
    return Console(stderr=True).status(what)


def _plain(text: str) -> str:
    """Text that rich prints as it is: intervals look like its markup."""
    return text.replace("[", "\\[")


def main(argv: list[str] | None = None) -> int:
    """Parse, run, and return the exit code."""
    command = tyro.cli(Command, prog="python -m analysis", args=argv, description=__doc__)  # pyrefly: ignore
    try:
        command.run(Console())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
