"""What study.json says of agents' runs, and what a group of them will cost: everything before any compute is spent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax

from plasticity import spec
from plasticity.record import SCHEMA
from rl import envs, learner
from rl.planning import normalised, plan_of
from rl.run import Run

#: Rough floating-point operations a second in float32, by backend; and emulated frames a second of one core.
RATE = {"cpu": 100e9, "gpu": 10e12, "tpu": 10e12}
FRAMES_A_CORE = 5_000


def task_json(run: Run) -> dict[str, Any]:
    """What study.json says of the games of a run."""
    games = [envs.get(name) for name in run.games]
    human = normalised(run)
    single = games[0] if len(games) == 1 else None
    random = single.random if single else None
    return {
        "key": run.key,
        "label": " > ".join(title(game.name) for game in games),
        "spec": spec.to_text(run.schedule),
        "steps": None,
        "num_tasks": run.schedule.iterations,
        "score_label": "human-normalised score" if human else "return an episode",
        "chance": 0.0 if human else random,
        "frames": run.schedule.iteration_frames,
        "bounded": False,
        "worst": 0.0 if human else (random or 0.0),
        "games": list(run.games),
        "random": random,
        "human": single.human if single else None,
        "switch_every": run.schedule.switch_iterations,
    }


def title(name: str) -> str:
    """A game as figures call it."""
    suite, _, rest = name.partition("_")
    return (
        f"{rest.replace('_', ' ').capitalize()} (MinAtar)"
        if suite == "minatar"
        else name.replace("_", " ").capitalize()
    )


def description(
    name: str, heading: str, about: str, runs: Sequence[Run], scale: str = "own", **more: Any
) -> dict[str, Any]:
    """The content of study.json for agents' runs. more: `factors`, `claims`, `reference`."""
    first = {run.key: run for run in reversed(runs)}
    return {
        "schema": SCHEMA,
        "kind": "rl",
        "name": name,
        "title": heading,
        "description": about,
        "scale": scale,
        "tasks": [task_json(run) for run in reversed(first.values())],
        "factors": [],
        "reference": None,
        "claims": [],
        "runs": len(runs),
        **more,
    }


def costs(run: Run, lanes: int) -> dict[str, Any]:
    """Of a group of `lanes` such runs: parameters of one, updates and frames of all, replay in words, rough seconds.

    Shapes are traced, nothing is computed. Raises `UserError` for a group that cannot be.
    """
    plan, held = plan_of(run, lanes)
    shapes = jax.eval_shape(lambda: learner.parts(plan, run.method, run.seed).initial)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"]))
    steps = run.schedule.frames // envs.spec_of(run.games[0], run.protocol).frames_per_step
    updates = int(max(steps - run.agent.min_replay_steps, 0) * run.agent.replay_ratio)
    seconds = None
    flops = _flops(plan, run, shapes)
    if flops is not None:
        passes = 3.0 + 1.0 + run.agent.double  # forward and backward of one batch; the target's; the selector's
        learning = updates * passes * run.agent.batch_size * flops
        acting = steps * flops
        rate = RATE.get(jax.default_backend(), RATE["cpu"])
        seconds = lanes * ((learning + acting) / rate + run.schedule.frames / FRAMES_A_CORE / 8)
    return {
        "parameters": parameters,
        "updates": lanes * updates,
        "frames": lanes * run.schedule.frames,
        "replay": held.words,
        "replay_mib": held.bytes / 2**20,
        "seconds": seconds,
    }


def _flops(plan: learner.Plan, run: Run, shapes: Any) -> float | None:
    """Multiply-adds of a forward pass on one observation, as XLA counts them; None where it does not say."""

    def forward(variables: Any, obs: Any) -> Any:
        return learner.outputs(plan, learner.parts(plan, run.method, 0), variables, obs)[0]

    obs = jax.ShapeDtypeStruct((1, *plan.observation), plan.layout.dtype)
    analysis = jax.jit(forward).lower(shapes, obs).cost_analysis()
    found = analysis[0] if isinstance(analysis, list) else analysis
    return found.get("flops") if found else None
