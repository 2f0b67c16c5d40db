"""Study folders as `sweeps` writes them, with made-up numbers whose truth is known: planted effects, losses, noise."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from plasticity import claims, record

TASKS = [
    ("label_reset", "Random-label reset", "end-of-task accuracy", 0.1),
    ("input_permutation", "Input permutation", "end-of-task accuracy", 0.1),
    ("target_drift", "Growing targets", "end-of-task R²", 0.0),
    ("class_permutation", "Class permutation", "end-of-task accuracy", 0.1),
    ("composite", "Composite drift", "end-of-task accuracy", 0.1),
]
FACTORS = [("layer_norm", "layer norm"), ("l2(1e-3)", "L2"), ("redo(tau=0.1)", "ReDo")]
DIAGNOSTICS = ["dead_units", "effective_rank", "weight_norm"]
OFFSETS = (0, 1, 2, 5, 10, 50, 200, 399)
STEPS = 400
REFERENCE = "full_reset"


def late_score(task: int, mitigations: str) -> float:
    """The true late score that is planted: what each factor keeps, diminishing when joined."""
    if mitigations == REFERENCE:
        return 0.85 - 0.03 * task
    gain = {"layer_norm": 0.25, "l2(1e-3)": 0.18, "redo(tau=0.1)": 0.05}
    kept = 1.0
    for part in [] if mitigations == "none" else mitigations.split("+"):
        kept *= 1 - gain[part] / 0.45
    return 0.40 - 0.03 * task + 0.45 * (1 - kept)


def run_rows(run_id: str, task: int, mitigations: str, seed: int, num_tasks: int, names: Sequence[str]) -> pd.DataFrame:
    """All metric rows of one run. Noise is shared by seed, so that pairing by seed matters."""
    digest = hashlib.sha256(run_id.encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:4], "little"))
    shared = 0.03 * np.random.default_rng([seed, task]).normal()
    t = np.arange(num_tasks)
    start, end = 0.85 - 0.03 * task, late_score(task, mitigations)
    curve = end + (start - end) * np.exp(-3.0 * t / num_tasks) + shared + 0.01 * rng.normal(size=num_tasks)
    score = np.clip(curve, 0, 1)
    lost = np.clip(start - curve, 0, 1)
    blocks = [
        pd.DataFrame({"task": t, "step": (t + 1) * STEPS, "name": name, "value": value, "unit": unit, "layer": ""})
        for name, value, unit in (
            ("end_score", score, "fraction"),
            ("online_score", 0.8 * score, "fraction"),
            ("test_score", 0.7 * score, "fraction"),
            ("baseline_repeat_last", np.full(num_tasks, 0.3 + 0.1 * task), "fraction"),
            ("end_loss", 2.3 * (1 - score), "nats"),
            ("online_loss", 2.3 * (1.1 - score), "nats"),
        )
    ]
    step = (t[:, None] * STEPS + np.array(OFFSETS)).ravel()
    since = np.tile(OFFSETS, num_tasks)
    level = np.repeat(lost, len(OFFSETS))
    for k, name in enumerate(names):
        spike = 0.4 * np.exp(-since / 40) * (k % 2 == 0)
        value = (level * (1 if k % 2 == 0 else -1) + 1 + spike + 0.02 * rng.normal(size=step.size)) * 10.0 ** (k % 3)
        for layer in ("", "hidden_0", "hidden_1"):
            block = {
                "task": np.repeat(t, len(OFFSETS)),
                "step": step,
                "name": name,
                "value": value,
                "unit": "",
                "layer": layer,
            }
            blocks.append(pd.DataFrame(block))
    return pd.concat(blocks, ignore_index=True).assign(run_id=run_id)[list(record.COLUMNS)]


def write_part(path: Path, rows: pd.DataFrame) -> None:
    """One parquet part, as sweeps writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect()
    connection.register("rows", rows)
    connection.execute(f"copy (select * from rows) to '{path}' (format parquet)")


def planted_claims() -> list[claims.Claim]:
    """A true statement, its reversal, a null, and trees of them."""
    late = {"task": "label_reset", "last": 3}
    norm, none = claims.Outcome(mitigations="layer_norm", **late), claims.Outcome(mitigations="none", **late)
    again = claims.Outcome(mitigations="none", task="label_reset", first=1)
    fresh = claims.Outcome(mitigations=REFERENCE, task="label_reset", first=1)
    true = claims.Contrast("layer norm minus none", ((1.0, norm), (-1.0, none)))
    false = claims.Contrast("none minus layer norm", ((1.0, none), (-1.0, norm)))
    null = claims.Contrast("fresh minus none, first task", ((1.0, fresh), (-1.0, again)))
    source = "Lyle et al. 2024, arXiv:2402.18762"
    return [
        claims.Claim("T1", "Layer norm keeps more plasticity than no mitigation.", source, true),
        claims.Claim("T2", "No mitigation keeps more than layer norm.", source, false),
        claims.Claim("T3", "A fresh network differs in the first task.", source, null),
        claims.Claim("T4", "Both at once.", source, claims.AllOf((true, null), "both")),
        claims.Claim("T5", "Either of them.", source, claims.AnyOf((true, false), "either")),
    ]


def all_combinations(factors: Sequence[tuple[str, str]]) -> list[str]:
    """none, singles, pairs, ..., reference."""
    specs = [spec for spec, _ in factors]
    found = ["+".join(c) or "none" for k in range(len(specs) + 1) for c in combinations(specs, k)]
    return [*found, REFERENCE]


def make_study(
    root: Path,
    *,
    name: str = "factorial",
    tasks: int = 3,
    factors: int = 2,
    seeds: Iterable[int] = range(5),
    num_tasks: int = 12,
    names: Sequence[str] = DIAGNOSTICS,
    status: dict[tuple[str, str, int], str] | None = None,
) -> Path:
    """Write a study folder and return it.

    status: (task, mitigations, seed) -> a status other than done; `missing` writes no line at all.
    """
    folder, status, seeds = root / name, status or {}, list(seeds)
    mitigations = all_combinations(FACTORS[:factors])
    for index, (key, _, _, _) in enumerate(TASKS[:tasks]):
        lines, rows = [], []
        for text in mitigations:
            for seed in seeds:
                state = status.get((key, text, seed), "done")
                if state == "missing":
                    continue
                config = {
                    "task": key,
                    "task_spec": f"{key}(steps={STEPS})",
                    "network": "mlp",
                    "optimizer": "adam(1e-3)",
                }
                config |= {"mitigations": text, "seed": seed}
                run_id = hashlib.sha256(repr(sorted(config.items())).encode()).hexdigest()[:12]
                error = "RuntimeError: out of memory" if state == "failed" else None
                lines.append(record.RunLine(run_id, f"{key}/{text}", seed, state, error, config))
                if state in ("planned", "failed"):
                    continue
                own = run_rows(run_id, index, text, seed, num_tasks, names)
                if state == "diverged":
                    own = own[own["task"] < num_tasks // 2]
                rows.append(own[own["task"] < 2] if state == "running" else own)
        group = folder / "groups" / f"{key}-0001"
        record.write_runs(group, lines)
        both = pd.concat(rows, ignore_index=True)
        for part in (0, 1):
            write_part(record.part_path(group, part), both[(both["task"] >= num_tasks // 2) == bool(part)])
        provenance = {
            "argv": ["python", "-m", "sweeps", "run", name],
            "git_commit": "0" * 40,
            "versions": {"jax": "0.10.2"},
        }
        record.write_json(group / "provenance.json", {**provenance, "wall_seconds": 12.5 + index, "device": "cpu"})
    meta = {
        "schema": record.SCHEMA, "name": name, "title": "Which combination keeps an MLP trainable?",
        "description": "Every combination of the factors on every task.", "scale": "laptop",
        "argv": ["python", "-m", "sweeps", "run", name, "--scale", "laptop"], "created": "2026-01-02T03:04:05",
        "tasks": [
            {"key": k, "label": v, "spec": f"{k}(steps={STEPS})", "steps": STEPS, "num_tasks": num_tasks,
             "score_label": s, "chance": c}
            for k, v, s, c in TASKS[:tasks]
        ],
        "factors": [{"spec": s, "label": v} for s, v in FACTORS[:factors]],
        "reference": REFERENCE,
        "claims": [claims.to_json(claim) for claim in planted_claims()],
        "runs": tasks * len(mitigations) * len(seeds),
    }  # fmt: skip
    record.write_json(folder / "study.json", meta)
    return folder
