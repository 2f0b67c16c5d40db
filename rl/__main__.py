"""`python -m rl`: train agents, evaluate and show what they have learned.

    python -m rl list games
    python -m rl train --game minatar_breakout --agent small_dqn --mitigations layer_norm --frames 100000
    python -m rl train --game pong --agent rainbow --mitigations 'layer_norm+l2(1e-7)'
    python -m rl evaluate runs/small_dqn-minatar_breakout --gif best.gif

The same `train` command again resumes. Specs with parentheses, and sequences of games (`'breakout>asterix'`), need
quotes in a shell. A mistake of the user is a message on stderr and exit code 2; the exit code is 1 if training failed
and 130 if it was stopped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from plasticity import cli


def list_(what: tyro.conf.Positional[Literal["games", "presets", "protocols", "sets"]] = "games") -> None:
    """List games (with random and human scores), agents' presets, protocols, or sets of games.

    Args:
        what: games, presets, protocols or sets.
    """
    from rich.console import Console
    from rich.table import Table

    from plasticity.registry import summary
    from rl import envs
    from rl.agents import agents
    from rl.protocols import protocols

    if what == "games":
        table = Table("game", "suite", "random", "human", title="games", title_justify="left")
        for game in envs.games().values():
            scores = ("" if score is None else f"{score:g}" for score in (game.random, game.human))
            table.add_row(game.name, game.suite, *scores)
    elif what == "sets":
        table = Table("set", "games", title="sets of games", title_justify="left")
        for name, members in envs.SETS.items():
            table.add_row(name, " ".join(members))
    else:
        family = agents if what == "presets" else protocols
        table = Table(what.removesuffix("s"), "what it is", "reference", title=what, title_justify="left")
        for name, cls in family.members().items():
            table.add_row(name, summary(cls), cls.reference)
    Console().print(table)
    if what in ("presets", "protocols"):
        print(f"all fields of one: python -m rl describe {'rainbow' if what == 'presets' else 'machado'}")


def describe(name: tyro.conf.Positional[str]) -> None:
    """Show an agent's preset or a protocol: what it is, its fields with units, and their values.

    Args:
        name: as `list presets` and `list protocols` show it.
    """
    from rich.console import Console

    from plasticity.describe import describe_config
    from plasticity.errors import unknown
    from rl.agents import agents
    from rl.protocols import protocols

    for family in (agents, protocols):
        if name in family.members():
            cls = family.members()[name]
            describe_config(Console(), name, cls, family.singular)
            if name in agents.members():
                preset = agents.members()[name]
                print(f"network {preset.network}\noptimizer {preset.optimizer}\nprotocol {preset.protocol}")
            return
    raise unknown("preset or protocol", name, [*agents.members(), *protocols.members()])


def train(
    game: str = "pong",
    agent: str = "rainbow",
    mitigations: str = "none",
    protocol: str = "",
    network: str = "",
    optimizer: str = "",
    frames: int = 0,
    iteration_frames: int = 0,
    checkpoint_iterations: int = 0,
    envs: int = 8,
    seeds: int = 1,
    first_seed: int = 0,
    switch_iterations: int = 0,
    keep_replay: bool = True,
    event_updates: int = 0,
    measure_updates: int = -1,
    reference: int = 256,
    ranks: bool = True,
    also: str = "",
    probe_iterations: int = 0,
    probe_updates: int = 200,
    out: Path | None = None,
    backend: Literal["ale", "envpool"] = "ale",
    threads: int = 0,
    save_replay: bool | None = None,
    save_seconds: float = 20.0,
    dry_run: bool = False,
    print_config: bool = False,
) -> int:
    """Train an agent, or go on with a training that was interrupted; several seeds train side by side.

    Args:
        game: a game, or a sequence such as 'breakout>asterix'.
        agent: an agent's preset, with changes, such as 'rainbow(n_step=5, replay_ratio=1)'.
        mitigations: a combination, such as 'layer_norm+redo(tau=0.1)', or none.
        protocol: how the game is presented; default the agent's own.
        network: default the agent's own, or one for the game's kind.
        optimizer: default the agent's own.
        frames: environment frames of the run (4 an agent step in Atari); 0 means 200 million, small games 100,000.
        iteration_frames: frames over which a score is averaged; 0 means a fiftieth of the run, a million at most.
        checkpoint_iterations: iterations between checkpoints, at each of which fresh episodes begin; 0 chooses.
        envs: environments that an agent acts in at once.
        seeds: number of agents that differ in their seed only, trained side by side.
        first_seed: seed of the first agent.
        switch_iterations: iterations between the games of a sequence.
        keep_replay: keep the replay when the game changes.
        event_updates: updates between events, at which mitigations such as shrink_perturb act; 0 means never.
        measure_updates: updates between diagnostics, beside the dense ones at the start; 0 means never, -1 chooses.
        reference: observations on which diagnostics are taken.
        ranks: also take the rank metrics.
        also: further diagnostics, such as 'pca_rank zero_activations'.
        probe_iterations: iterations between trainability probes; 0 means never.
        probe_updates: updates for which a probe trains a copy.
        out: results folder; default runs/AGENT-GAME.
        backend: emulator of the Atari games.
        threads: of the emulator; 0 means one a core.
        save_replay: save the replay in checkpoints; default if it is below a gigabyte.
        save_seconds: seconds between saves of measured values.
        dry_run: show memory, updates and time, and write nothing.
        print_config: print study.json and the config of every run as JSON, and write nothing.
    """
    from rl import study
    from rl.command import Request, execute
    from rl.recipe import runs_of

    recipe = {
        "game": game,
        "agent": agent,
        "mitigations": [mitigations],
        "protocol": protocol,
        "network": network,
        "optimizer": optimizer,
        "frames": frames,
        "iteration_frames": iteration_frames,
        "checkpoint_iterations": checkpoint_iterations,
        "envs": envs,
        "seeds": range(first_seed, first_seed + seeds),
        "switch_iterations": switch_iterations,
        "keep_replay": keep_replay,
        "event_updates": event_updates,
        "measure_updates": measure_updates,
        "reference": reference,
        "ranks": ranks,
        "also": also,
        "probe_iterations": probe_iterations,
        "probe_updates": probe_updates,
    }
    runs = runs_of(**recipe)
    name = f"{runs[0].agent.name}-{runs[0].key.replace('>', '-')}"
    if print_config:
        about = study.description(name, name, "", runs)
        print(json.dumps({**about, "configs": {run.id: run.config for run in runs}}, indent=1))
        return 0
    choices = {"backend": backend, "threads": threads, "save_replay": save_replay}
    return execute(Request(runs, out or Path("runs") / name, save_seconds, choices), dry_run)


def evaluate(
    folder: tyro.conf.Positional[Path],
    policy: Literal["best", "last"] = "best",
    episodes: int = 20,
    epsilon: float | None = None,
    game: str = "",
    seed: int = 10**6,
    gif: Path | None = None,
    sheet: Path | None = None,
    most_steps: int = 2_000,
) -> int:
    """Evaluate the saved policies of a training or a sweep on whole fresh episodes, and show one of them.

    Args:
        folder: results folder, or the folder of one group.
        policy: best is that of each run's best iteration, last the newest.
        episodes: of each run.
        epsilon: share of random actions; default the agent's own for evaluation.
        game: play another game of the same kind instead.
        seed: of the environments.
        gif: file to draw an episode of the first run into.
        sheet: file to draw a contact sheet of that episode into (PNG).
        most_steps: longest episode that is drawn, in agent steps.
    """
    from rl.command import Evaluation, evaluate_folder

    return evaluate_folder(folder, Evaluation(policy, episodes, epsilon, game, seed, gif, sheet, most_steps))


COMMANDS: dict[str, Any] = {"list": list_, "describe": describe, "train": train, "evaluate": evaluate}


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    return cli.run("python -m rl", __doc__ or "", COMMANDS, args)


if __name__ == "__main__":
    sys.exit(main())
