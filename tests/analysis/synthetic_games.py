"""Folders of reinforcement-learning studies, with made-up returns whose truth is known: curves, gaps, divergence."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from synthetic_study import write_part

from plasticity import record

GAMES = {  # key: label, random, human
    "pong": ("Pong", -20.7, 14.6),
    "breakout": ("Breakout", 1.7, 30.5),
    "beam_rider": ("Beam Rider", 363.9, 16926.5),
}
MINATAR = {"breakout": ("MinAtar Breakout", 0.5, None), "freeway": ("MinAtar Freeway", None, None)}
UPDATES = 1000  # an iteration, once the replay is filled
FILLING = 2  # iterations without an update
CADENCE = 300  # of diagnostics, in updates; does not divide an iteration
DIAGNOSTICS = ("dormant_units", "q_mean", "td_error", "policy_churn")
STRENGTH = {"none": 0.6, "layer_norm": 1.0, "redo(tau=0.025)": 0.8}


def task_entry(key: str, games: Sequence[str], iterations: int, frames: int, atari: bool, switch_every: int) -> dict:
    """One entry of `tasks` in study.json."""
    label, random, human = (GAMES if atari else MINATAR)[games[0]]
    label = label if len(games) == 1 else " / ".join((GAMES if atari else MINATAR)[g][0] for g in games)
    one = len(games) == 1
    return {
        "key": key, "label": label, "spec": f"{'atari' if atari else 'minatar'}({key})", "steps": None,
        "num_tasks": iterations, "score_label": "human-normalised score" if atari else "return an episode",
        "chance": 0.0 if atari else random, "frames": frames, "bounded": False,
        "worst": 0.0 if atari else (random or 0.0), "games": list(games), "random": random if one else None,
        "human": human if one else None, "switch_every": switch_every,
    }  # fmt: skip


def score(t: np.ndarray, mitigations: str, iterations: int, rng: np.random.Generator) -> np.ndarray:
    """Human-normalised score by iteration: grows towards what the mitigations allow."""
    top = STRENGTH[mitigations]
    return top * (1 - np.exp(-4 * (t + 1) / iterations)) + 0.05 * rng.normal() + 0.02 * rng.normal(size=t.size)


def run_rows(run_id: str, entry: dict, mitigations: str, agent: str, seed: int, upto: int, silent: int) -> pd.DataFrame:
    """All rows of the first `upto` iterations; in the first `silent` ones no episode ends."""
    digest = hashlib.sha256(run_id.encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:4], "little"))
    t = np.arange(upto)
    step = np.maximum(t + 1 - FILLING, 0) * UPDATES
    value = score(t, mitigations, entry["num_tasks"], rng) * (1.3 if agent.startswith("rainbow") else 1.0)
    games, every = entry["games"], entry["switch_every"]
    game = (t // every % len(games)) if every else 0 * t
    table = GAMES if "atari" in entry["spec"] else MINATAR
    low = np.array([table[games[g]][1] or 0.0 for g in game])
    high = np.array([table[games[g]][2] or 40.0 for g in game])
    raw = low + value * (high - low)
    rows = [("end_score", value if "atari" in entry["spec"] else raw, "score"), ("return", raw, "return")]
    rows += [("episodes", 3.0 + t % 2, "episodes"), ("episode_length", 900.0 + 0 * t, "frames")]
    rows += [("epsilon", np.maximum(1 - 0.2 * t, 0.01), ""), ("game", 1.0 * game, "")]
    blocks = [
        pd.DataFrame({"task": t, "step": step, "name": name, "value": column, "unit": unit, "layer": ""}).iloc[
            silent if name in ("end_score", "return", "episode_length") else 0 :
        ]
        for name, column, unit in rows
    ]
    dense = np.arange(CADENCE, max(upto - FILLING, 0) * UPDATES + 1, CADENCE)
    when = FILLING + (dense - 1) // UPDATES
    for k, name in enumerate(DIAGNOSTICS):
        grown = 0.1 + 0.5 * dense / (entry["num_tasks"] * UPDATES) * (1.5 - STRENGTH[mitigations])
        noise = 0.02 * rng.normal(size=dense.size)
        for layer in ("", "conv_0"):
            place = {"task": when, "step": dense, "name": name, "unit": "", "layer": layer}
            blocks.append(pd.DataFrame({**place, "value": (grown + noise) * 10.0 ** (k % 2)}))
    return pd.concat(blocks, ignore_index=True).assign(run_id=run_id)[list(record.COLUMNS)]


def make_games(
    root: Path,
    *,
    name: str = "games",
    games: Sequence[str | Sequence[str]] = ("pong", "breakout", "beam_rider"),
    mitigations: Sequence[str] = ("none", "layer_norm"),
    agents: Sequence[str] = ("dqn",),
    seeds: Iterable[int] = range(3),
    iterations: int = 10,
    frames: int = 1_000_000,
    atari: bool = True,
    switch_every: int = 4,
    status: dict[tuple[str, str, int], str] | None = None,
    upto: int | None = None,
    silent: int = 0,
) -> Path:
    """Write a study folder and return it. A game that is a list is a sequence of games, with switches.

    status: (task key, mitigations, seed) -> a status other than done. Unfinished and diverged runs have the first
    `upto` iterations (default: half of them); `silent`: iterations at the start without a finished episode.
    """
    folder, status, entries, planned = root / name, status or {}, [], 0
    for game in games:
        several = [game] if isinstance(game, str) else list(game)
        key = "-".join(several)
        entry = task_entry(key, several, iterations, frames, atari, switch_every if len(several) > 1 else 0)
        entries.append(entry)
        lines, rows = [], []
        for text, agent, seed in ((m, a, s) for m in mitigations for a in agents for s in seeds):
            planned += 1
            state = status.get((key, text, seed), "done")
            config = {
                "task": key, "game": ",".join(several), "agent": agent, "protocol": "machado", "network": "nature",
                "optimizer": "adam(6.25e-5)" if agent == "dqn" else "adam(1e-4)", "mitigations": text, "seed": seed,
            }  # fmt: skip
            run_id = hashlib.sha256(repr(sorted(config.items())).encode()).hexdigest()[:12]
            lines.append(record.RunLine(run_id, f"{key}/{text}", seed, state, None, config))
            if state == "planned":
                continue
            reached = iterations if state == "done" else (iterations // 2 if upto is None else upto)
            rows.append(run_rows(run_id, entry, text, agent, seed, reached, silent))
        group = folder / "groups" / f"{key}-0001"
        record.write_runs(group, lines)
        record.write_json(group / "provenance.json", {"device": "cpu", "wall_seconds": 60.0})
        if rows:
            write_part(record.part_path(group, 0), pd.concat(rows, ignore_index=True))
    meta = {
        "schema": record.SCHEMA, "kind": "rl", "name": name, "title": "Which mitigation helps DQN?",
        "description": "Every mitigation on every game.", "scale": "laptop", "argv": ["python", "-m", "sweeps"],
        "tasks": entries, "factors": [{"spec": "layer_norm", "label": "layer norm"}], "reference": None,
        "claims": [], "runs": planned,
    }  # fmt: skip
    record.write_json(folder / "study.json", meta)
    return folder
