"""Study folders into one `Study` and one tidy frame.

The frame has one row a recorded number, with its run's place in the design:

    run_id  task  combination  mitigations  seed  status  step  task_index  name  layer  value  unit

`task` is the key of the task kind, `task_index` counts the tasks of a run from 0, `step` counts optimiser
updates. Of a number recorded per layer only (never for the whole network) the frame carries the mean over layers.

Two rules hold for everything that is drawn or decided later:
* A run id may occur in several groups (a regrouped or resumed study). A finished one wins, then the furthest.
* A run that diverged has the worst score (`Task.worst`) for every task from there on: dropping it would reward
  instability. Quantities without a worst value (losses, norms) stay missing.

Nothing here takes the step for a clock: in reinforcement learning it stands still while the replay fills.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.metrics import whole_network
from analysis.stats import LEVEL
from analysis.study import BESIDE, FRESH, NONE, Study, Task
from plasticity.claims import from_json
from plasticity.errors import UserError, unknown
from plasticity.record import FINISHED, group_folders, read_json, read_runs

_PREFERENCE = {"diverged": 4, "done": 4, "running": 3, "failed": 2, "planned": 1}
_NOT_AN_AXIS = {"task", "task_spec", "mitigations", "seed", "seeds", "run_id", "label"}
_SCORES = ("end_score", "online_score", "test_score")
_RETURN = "return"
_UNTOLD: dict[str, Any] = {"bounded": False, "switch_every": 0, "score_label": "score"}  # of a game, where not said


def resolve(name: str | Path, root: Path = Path("runs")) -> Path:
    """A folder given as a path, or as the name of a study under `runs/`."""
    for path in (Path(name), root / name):
        if path.is_dir():
            return path
    known = [p.name for p in root.glob("*") if p.is_dir()]
    if known:
        raise unknown("study (or folder)", str(name), known)
    raise UserError(f"no such folder: {name} (nor {root / name}; there are no studies under {root}/)")


def load(paths: str | Path | Sequence[str | Path], level: float = LEVEL) -> tuple[Study, pd.DataFrame]:
    """Read study folders, group folders, or names under runs/, together. Raises `UserError` naming what is wrong.

    level: level of all intervals computed from this study, 0 < level < 1.
    """
    if not 0 < level < 1:
        raise UserError(f"level must lie between 0 and 1, for example 0.95; got {level}")
    if not paths:
        raise UserError("give at least one study: a folder, or a name under runs/")
    folders = [resolve(p) for p in ([paths] if isinstance(paths, str | Path) else paths)]
    studies = [_read_study(folder) for folder in folders]
    study = replace(_merge(studies), level=level)
    runs, metrics = _deduplicate(study.runs, whole_network(list(study.runs["group"].unique())))
    runs = _name_combinations(runs)
    study = replace(study, runs=runs, tasks=_complete_tasks(study, runs, metrics))
    if study.reference is None and (runs["mitigations"] == FRESH).any():
        study = replace(study, reference=FRESH)  # a sweep of one's own declares no reference, but may have one
    columns = ["run_id", "task", "combination", "mitigations", "seed", "status"]
    frame = runs[columns].merge(metrics, on="run_id", how="inner")
    frame = _worst_score_after_divergence(frame, study)
    for name in ("run_id", "task", "combination", "mitigations", "status", "name", "layer", "unit"):
        frame[name] = frame[name].astype("category")
    return study, frame


def _read_study(folder: Path) -> Study:
    """What one folder says about itself, without its metrics. A bare group folder is a study of one group."""
    bare = (folder / "runs.jsonl").is_file() and not (folder / "study.json").is_file()
    meta: dict[str, Any] = read_json(folder / "study.json") if (folder / "study.json").is_file() else {}
    groups = [folder] if bare else group_folders(folder)
    rows: list[dict[str, Any]] = [
        {**line._asdict(), "group": str(group)} for group in groups for line in read_runs(group)
    ]
    if not rows:
        raise UserError(f"no runs recorded in {folder}: expected groups/<group>/runs.jsonl in a study folder")
    for row in rows:
        config = row["config"]
        row["task"] = str(config.get("task", "task"))
        row["mitigations"] = str(config.get("mitigations", NONE)) or NONE
    # A bare group folder does not say of which kind it is, but only agents play.
    kind = str(meta.get("kind") or ("rl" if bare and all("agent" in row["config"] for row in rows) else ""))
    provenance = [(g.name, read_json(g / "provenance.json")) for g in groups if (g / "provenance.json").is_file()]
    try:
        tasks = tuple(_task(t, kind) for t in meta.get("tasks", ()))
        factors = tuple((f["spec"], f.get("label", f["spec"])) for f in meta.get("factors", ()))
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise UserError(f"cannot use {folder / 'study.json'}: {error}") from None
    return Study(
        name=meta.get("name", folder.resolve().name),
        paths=(folder,),
        title=meta.get("title", folder.resolve().name),
        description=meta.get("description", ""),
        scale=meta.get("scale", ""),
        commands=(tuple(meta["argv"]),) if meta.get("argv") else (),
        tasks=tasks,
        factors=factors,
        reference=meta.get("reference"),
        claims=tuple(from_json(claim) for claim in meta.get("claims", ())),
        planned=int(meta.get("runs") or 0),
        runs=pd.DataFrame(rows),
        provenance=tuple(provenance),
        kind=kind,
    )


def _task(meta: dict[str, Any], kind: str) -> Task:
    """A task entry of study.json; keys that analysis does not know are left alone."""
    known = (_UNTOLD if kind == "rl" else {}) | {k: v for k, v in meta.items() if k in Task.__dataclass_fields__}
    known["games"] = tuple(known.get("games") or ())
    if isinstance(known.get("steps"), list):
        known["steps"] = tuple(known["steps"])
    for key in ("random", "human", "chance"):
        # A sequence of games has no one random score.
        known[key] = float(known[key]) if isinstance(known.get(key), int | float) else None
    return Task(**known)


def _merge(studies: list[Study]) -> Study:
    """Several studies as one; the same task key must mean the same task in all of them."""
    tasks: dict[str, Task] = {}
    for study in studies:
        for task in study.tasks:
            if tasks.setdefault(task.key, task) != task:
                names = ", ".join(s.name for s in studies)
                raise UserError(f"task {task.key!r} differs between the studies {names}: analyse them one by one")
    first = studies[0]
    if len(studies) == 1:
        return first
    if len({s.kind for s in studies}) > 1:
        names = ", ".join(f"{s.name} ({s.kind or 'supervised'})" for s in studies)
        raise UserError(f"the studies are of different kinds: {names}: analyse them one by one")
    references = {s.reference for s in studies if s.reference}
    if len(references) > 1:
        raise UserError(f"the studies have different references: {', '.join(sorted(references))}")
    return replace(
        first,
        name="+".join(dict.fromkeys(s.name for s in studies)),
        paths=tuple(p for s in studies for p in s.paths),
        title=" and ".join(dict.fromkeys(s.title for s in studies)),
        description=" ".join(dict.fromkeys(s.description for s in studies)),
        scale=", ".join(dict.fromkeys(s.scale for s in studies)),
        commands=tuple(dict.fromkeys(c for s in studies for c in s.commands)),
        tasks=tuple(tasks.values()),
        factors=tuple(dict.fromkeys(f for s in studies for f in s.factors)),
        reference=next(iter(references), None),
        claims=tuple(dict.fromkeys(c for s in studies for c in s.claims)),
        planned=sum(s.planned for s in studies),
        runs=pd.concat([s.runs for s in studies], ignore_index=True),
        provenance=tuple(p for s in studies for p in s.provenance),
    )


def _deduplicate(runs: pd.DataFrame, metrics: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Each run id once: finished before unfinished, then the one that got furthest, then the first group."""
    far = metrics.groupby(["run_id", "group"])[["task_index", "step"]].max()
    # The task first: the first iterations of an agent that fills its replay all end at update 0.
    far["reached"] = far["task_index"] * (1.0 + metrics["step"].max()) + far["step"]
    reached = far["reached"].reset_index()
    runs = runs.merge(reached, on=["run_id", "group"], how="left")
    rank = runs["status"].map(_PREFERENCE).fillna(0)
    order = runs.assign(rank=-rank, reached=-runs["reached"].fillna(-1))
    order = order.sort_values(["run_id", "rank", "reached", "group"], kind="stable")
    runs = runs.loc[order.index].drop_duplicates("run_id").drop(columns="reached").reset_index(drop=True)
    metrics = metrics.merge(runs[["run_id", "group"]], on=["run_id", "group"], how="inner")
    return runs, metrics.drop(columns="group")


def _name_combinations(runs: pd.DataFrame) -> pd.DataFrame:
    """Add `combination`: the mitigations, and whatever else varies at the same task, mitigations and seed."""
    keys = sorted({k for c in runs["config"] for k in c} - _NOT_AN_AXIS)
    texts = pd.DataFrame([[str(c.get(k, "-")) for k in keys] for c in runs["config"]], columns=keys)
    place = [runs["task"], runs["mitigations"], runs["seed"]]
    varying = [k for k in keys if (texts[k].groupby(place).nunique() > 1).any()]
    if "agent" in varying:
        # An agent brings its own network and optimiser: its name says it all, unless they vary beside it.
        varying = [k for k in varying if k == "agent" or (texts.groupby("agent")[k].nunique() > 1).any()]
    beside = [", ".join(f"{k}={row[k]}" for k in varying) for _, row in texts.iterrows()]
    names = [m + (BESIDE + b if b else "") for m, b in zip(runs["mitigations"], beside, strict=True)]
    return runs.assign(combination=names)


def _complete_tasks(study: Study, runs: pd.DataFrame, metrics: pd.DataFrame) -> tuple[Task, ...]:
    """Tasks as declared, then those only seen in runs; an undeclared number of tasks is read off the records."""
    key = runs.set_index("run_id")["task"]
    seen = metrics.groupby(metrics["run_id"].map(key))["task_index"].max() + 1
    tasks = study.tasks
    extra = [_task({"key": k, "label": k}, study.kind) for k in sorted(set(runs["task"]) - {t.key for t in tasks})]
    every = [replace(t, num_tasks=t.num_tasks or int(seen.get(t.key, 0))) for t in (*tasks, *extra)]
    # A sweep of one's own has spec texts for labels; the bare name is enough where it tells the tasks apart.
    names = [t.label.partition("(")[0] for t in every]
    short = [
        n.replace("_", " ").capitalize() if names.count(n) == 1 else t.label for n, t in zip(names, every, strict=True)
    ]
    return tuple(replace(t, label=s) if t.label == t.key else t for t, s in zip(every, short, strict=True))


def _worst_score_after_divergence(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Scores that are not finite in finished runs become the worst, and so do the tasks a diverged run never reached.

    Tasks are reached up to the last one with a finite score: an iteration before it in which no episode ended has none.
    """
    worst = {(t.key, name): t.worst for t in study.tasks for name in _SCORES}
    worst |= {(t.key, _RETURN): t.worst_return for t in study.tasks if t.worst_return is not None}
    names = sorted({name for _, name in worst})
    if study.rl:
        # The return of an episode is finite; NaN can only mean that none ended, and that is no row.
        frame = frame[~frame["name"].isin(names) | np.isfinite(frame["value"])].reset_index(drop=True)
    score = frame["name"].isin(names) & frame["status"].isin(FINISHED)
    lost = score & ~np.isfinite(frame["value"])
    places = zip(frame.loc[lost, "task"], frame.loc[lost, "name"], strict=True)
    frame.loc[lost, "value"] = [worst.get(place, np.nan) for place in places]
    told = frame[score & ~lost].groupby(["run_id", "name"])["task_index"].max().to_dict()
    here = frame[score].groupby(["run_id", "name"])["task_index"].agg(set).to_dict()
    end = frame.groupby("run_id")["step"].max().to_dict()
    recorded = set(frame["name"].unique())
    added = []
    for run in study.runs[study.runs["status"] == "diverged"].to_dict("records"):
        task, who = study.task(run["task"]), run["run_id"]
        place = {k: run[k] for k in ("run_id", "task", "combination", "mitigations", "seed", "status")}
        for name in [n for n in names if n in recorded] or ["end_score"]:
            if (task.key, name) not in worst:
                continue
            missing = set(range(told.get((who, name), -1) + 1, task.num_tasks)) - here.get((who, name), set())
            for index in sorted(missing):
                step = task.before(index + 1) if task.steps else end.get(who, 0)
                value = worst[task.key, name]
                added.append(
                    {**place, "step": step, "task_index": index, "name": name, "layer": "", "value": value, "unit": ""}
                )
    return pd.concat([frame, pd.DataFrame(added)], ignore_index=True) if added else frame
