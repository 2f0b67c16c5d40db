"""What `python -m rl train` and `evaluate` do: check, say what it will cost, train, sum up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from plasticity import cli
from plasticity.errors import UserError
from plasticity.folder import Options, Stopped, compute, open_study
from plasticity.identity import digest
from plasticity.progress import bar, stop_flag
from plasticity.record import FINISHED, RunLine, group_folders, read_runs, write_json, write_runs
from rl import envs, render, study
from rl.envs.envpool import check_installed
from rl.evaluate import Policies, evaluate, groups_of
from rl.run import Run
from rl.train import train

STOPPED = 130


@dataclass(frozen=True)
class Request:
    """A training to carry out. choices: of `rl.train.train`."""

    runs: Sequence[Run]
    out: Path
    save_seconds: float
    choices: dict[str, Any]


def execute(request: Request, dry_run: bool = False) -> int:
    """Train the runs side by side, or what is left of them; the exit code."""
    console = Console(highlight=False, markup=False)
    runs = list(request.runs)
    first = runs[0]
    if not request.save_seconds >= 0:
        raise UserError(f"--save-seconds must be >= 0, got {request.save_seconds}")
    if request.choices.get("backend") == "envpool" and envs.get(first.games[0]).suite == "atari":
        check_installed()
    cli.use_compilation_cache()
    name = request.out.name
    about = study.description(name, f"{first.agent.name} on {study.task_json(first)['label']}", "", runs)
    open_study(request.out, about, "rl", write=False)
    path = request.out / "groups" / digest([run.id for run in runs])
    _check_same(request.out, path)
    if _finished(path):
        console.print(f"finished before: {request.out}\nnext: python -m analysis report {request.out}")
        return 0
    _say(console, first, len(runs), study.costs(first, len(runs)), request.out)
    if dry_run:
        return 0
    open_study(request.out, about, "rl")
    lines = [RunLine(run.id, run.label, run.seed, "planned", None, run.config) for run in runs]
    if not read_runs(path):
        write_json(path / "group.json", {"shape": [len(runs), 1], "padded": [first.label]})
        write_runs(path, lines)
    total = len(runs) * first.schedule.frames
    with stop_flag(console) as stopped, bar(console, first.key, total, "frames") as progress:
        options = Options(request.save_seconds, stop=stopped, progress=progress.advance, say=progress.say)
        try:
            methods = [run.method for run in runs]
            ok = compute(path, lines, lambda folder: train(folder, runs, methods, options, **request.choices))
        except Stopped:
            console.print(f"stopped; the same command goes on from here. Results so far: {request.out}")
            return STOPPED
    for line in read_runs(path):
        ending = f": {line.error}" if line.error else ""
        console.print(f"seed {line.seed}: {line.status}{ending}", style="red" if line.status == "failed" else None)
    console.print(f"results: {request.out}\nnext: python -m analysis report {request.out}")
    return 0 if ok else 1


def _check_same(out: Path, path: Path) -> None:
    """An output folder is for one training: another config would mix two."""
    others = [group for group in group_folders(out) if group != path]
    if not others:
        return
    known = read_runs(others[0])
    if known:
        config = {key: value for key, value in known[0].config.items() if key not in ("task", "seed")}
        raise UserError(f"{out} holds another training: {json.dumps(config)}; choose another --out")


def _finished(path: Path) -> bool:
    lines = read_runs(path)
    return bool(lines) and all(line.status in FINISHED for line in lines)


def _say(console: Console, run: Run, lanes: int, cost: dict[str, Any], out: Path) -> None:
    seconds = cost["seconds"]
    time = f"about {_duration(seconds)} (order of magnitude)" if seconds is not None else "unknown"
    console.print(
        f"{run.key}: {lanes} agent(s) side by side, {cost['frames']:,} frames and {cost['updates']:,} updates in all\n"
        f"agent {run.config['agent']}, protocol {run.config['protocol']}, network {run.config['network']} "
        f"({cost['parameters']:,} parameters), optimizer {run.config['optimizer']}, mitigations {run.label}\n"
        f"replay: {cost['replay']}\n"
        f"{run.schedule.iterations} iterations of {run.schedule.iteration_frames:,} frames, a checkpoint every "
        f"{run.schedule.checkpoint_iterations}; device {jax.default_backend()}; time: {time}\n"
        f"results: {out} (at any time: python -m analysis report {out})"
    )


def _duration(seconds: float) -> str:
    for size, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} s"


@dataclass(frozen=True)
class Evaluation:
    """How to evaluate. epsilon: None for the agent's own. gif, sheet: files to draw the first run's policy into."""

    policy: str = "best"
    episodes: int = 20
    epsilon: float | None = None
    game: str = ""
    seed: int = 10**6
    gif: Path | None = None
    sheet: Path | None = None
    most_steps: int = 2_000


def evaluate_folder(folder: Path, wanted: Evaluation) -> int:
    """Evaluate the saved policies of all runs of a folder, print and write their scores, draw if asked."""
    console = Console(highlight=False, markup=False)
    if wanted.episodes < 1:
        raise UserError(f"--episodes must be >= 1, got {wanted.episodes}")
    if wanted.epsilon is not None and not 0 <= wanted.epsilon <= 1:
        raise UserError(f"--epsilon must lie between 0 and 1, got {wanted.epsilon}")
    cli.use_compilation_cache()
    table = Table(
        "game", "mitigations", "seed", "mean", "median", "sd", "normalised", title=f"{wanted.policy} policies"
    )
    records: list[dict[str, Any]] = []
    drawn = wanted.gif is None and wanted.sheet is None
    for group in groups_of(folder):
        policies = Policies.load(group, wanted.policy)
        game = envs.get(wanted.game or policies.runs[0].games[0])
        returns = evaluate(policies, wanted.episodes, wanted.epsilon, game.name, seed=wanted.seed)
        for run, found in zip(policies.runs, returns, strict=True):
            mean = float(found.mean())
            normal = None if game.human is None else float(envs.normalized(game, mean))
            cells = (
                f"{mean:.1f}",
                f"{np.median(found):.1f}",
                f"{found.std():.1f}",
                "" if normal is None else f"{normal:.2f}",
            )
            table.add_row(game.name, run.label, str(run.seed), *cells)
            records.append({"run_id": run.id, "game": game.name, "normalised": normal, "returns": found.tolist()})
        if not drawn:
            drawn = True
            _draw(console, policies, wanted, game.name)
    console.print(table)
    path = folder / f"evaluation-{wanted.policy}.json"
    write_json(path, {"episodes": wanted.episodes, "epsilon": wanted.epsilon, "seed": wanted.seed, "runs": records})
    console.print(f"written: {path}")
    return 0


def _draw(console: Console, policies: Policies, wanted: Evaluation, game: str) -> None:
    run = policies.runs[0]
    epsilon = run.agent.eval_epsilon if wanted.epsilon is None else wanted.epsilon
    pictures, score = render.play(policies, 0, epsilon, wanted.most_steps, game, wanted.seed)
    for path, write in ((wanted.gif, render.gif), (wanted.sheet, render.contact_sheet)):
        if path is not None:
            write(path, pictures)
            console.print(f"written: {path} (seed {run.seed}, return {score:g}, {len(pictures)} steps)")
