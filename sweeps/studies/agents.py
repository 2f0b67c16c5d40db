"""{layer norm} x {L2} in agents that learn from their own experience: DQN on MinAtar, Rainbow on Atari.

    python -m sweeps run agents --executor processes && python -m analysis report runs/agents-laptop

An agent's targets move with its own values and its data with its own policy, so the study asks of agents what
`factorial` asks of streams of tasks. The claim is C14 of Lyle et al. 2024, "Disentangling the Causes of Plasticity Loss
in Neural Networks" (arXiv:2402.18762), which reports modest, consistent gains of layer norm for C51 and Rainbow on 57
Atari games, and that L2 interferes.

What is ours: the laptop scale is DQN on MinAtar's Breakout, sixty thousand frames, with a larger L2 than the
paper's 1e-5, since a run has a five-hundredth of the paper's updates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plasticity.claims import AllOf, Claim, Contrast, Outcome
from rl import study as games_study
from rl.envs import SETS
from sweeps.agent_grid import AgentGrid
from sweeps.grid import subsets
from sweeps.studies.factorial import NORM, SOURCE, together
from sweeps.study import Scale, Study

SCORE = "end_score"
PROBE = "Lyle et al. 2023, arXiv:2303.01486 (layer norm and the probe)"


@dataclass(frozen=True)
class Design:
    """The study at one scale. l2: spec text. late: iterations at the end over which scores are averaged.

    margin: what counts as a difference, in the scores' own units.
    """

    games: tuple[str, ...]
    agent: str
    l2: str
    seeds: int
    late: int
    margin: float
    settings: Mapping[str, Any]

    def grid(self) -> AgentGrid:
        return AgentGrid(self.games, (self.agent,), subsets(NORM, self.l2), seeds=self.seeds, settings=self.settings)

    def _over_games(self, *members: str, sign: float = 1.0, metric: str = SCORE) -> tuple[tuple[float, Outcome], ...]:
        """The mean of a combination over the games, in late iterations."""
        weight = sign / len(self.games)
        return tuple((weight, Outcome(game, together(*members), metric, last=self.late)) for game in self.games)

    def _difference(
        self, one: tuple[str, ...], other: tuple[str, ...], metric: str = SCORE
    ) -> tuple[tuple[float, Outcome], ...]:
        return (*self._over_games(*one, metric=metric), *self._over_games(*other, sign=-1.0, metric=metric))

    def claims(self) -> tuple[Claim, ...]:
        """C14 in two halves, whether the two mitigations add up, and what the trainability probe says."""
        gain = Contrast("layer norm minus no mitigation, late iterations", self._difference((NORM,), ()))
        hurt = Contrast(
            "L2 minus no mitigation, late iterations", self._difference((self.l2,), ()), "less", self.margin
        )
        both = (
            *self._over_games(NORM, self.l2),
            *self._over_games(NORM, sign=-1.0),
            *self._over_games(self.l2, sign=-1.0),
            *self._over_games(),
        )
        lost = self._difference((), (NORM,), metric="probe_loss")
        probe = Contrast("probe loss of no mitigation minus layer norm, late iterations", lost)
        adds = Contrast("interaction of layer norm and L2, late iterations", both, margin=-self.margin)
        return (
            Claim("C14 (norm)", "Layer norm helps a value-based agent.", SOURCE, AllOf((gain,))),
            Claim("C14 (L2)", f"L2 does not help it by more than {self.margin:g}.", SOURCE, AllOf((hurt,))),
            Claim("trainability", "An agent with layer norm stays more trainable.", PROBE, probe),
            Claim("additivity", f"The effects of layer norm and L2 add up (not below -{self.margin:g}).", SOURCE, adds),
        )

    def scale(self, cost: str) -> Scale:
        return Scale(self.grid(), cost, self.claims())


SMALL = {"envs": 4, "probe_updates": 100}


def smoke() -> Scale:
    """Every program of the study, and hardly any learning: for CI."""
    return Design(
        games=("minatar_breakout",),
        agent="small_dqn(min_replay_steps=400)",
        l2="l2(1e-4)",
        seeds=2,
        late=1,
        margin=0.5,
        settings={**SMALL, "frames": 2_000, "iteration_frames": 400, "probe_iterations": 5},
    ).scale("about a minute, nearly all of it compilation; its verdicts mean nothing")


def laptop() -> Scale:
    return Design(
        games=("minatar_breakout",),
        agent="small_dqn",
        l2="l2(1e-4)",
        seeds=8,
        late=6,
        margin=0.5,
        settings={**SMALL, "frames": 60_000, "iteration_frames": 2_000, "checkpoint_iterations": 5}
        | {"probe_iterations": 6},
    ).scale("within ten minutes on 2 CPU cores, with --executor processes")


def gpu() -> Scale:
    return Design(
        games=SETS["dev5"],
        agent="dopamine_rainbow",
        l2="l2",
        seeds=3,
        late=2,
        margin=0.05,
        settings={"frames": 10_000_000, "iteration_frames": 1_000_000, "envs": 8, "probe_iterations": 5},
    ).scale("60 runs of 10 million Atari frames, for a GPU; not run by us")


def paper() -> Scale:
    return Design(
        games=SETS["atari57"],
        agent="rainbow",
        l2="l2",
        seeds=3,
        late=10,
        margin=0.05,
        settings={"frames": 200_000_000, "envs": 8, "probe_iterations": 20},
    ).scale("684 runs of 200 million Atari frames, for a cluster of GPUs; not run by us")


STUDY = Study(
    name="agents",
    title="Do layer norm and L2 help agents that learn from their own experience?",
    description=(
        "All combinations of layer norm and L2 in value-based agents. At laptop scale the agent is DQN on MinAtar's "
        "Breakout; larger scales are Rainbow on Atari games. Scores are returns of the training episodes, averaged "
        "over each iteration; the trainability probe fits fresh targets with copies of the networks."
    ),
    scales={"smoke": smoke, "laptop": laptop, "gpu": gpu, "paper": paper},
    task_labels={game: games_study.title(game) for games in SETS.values() for game in games},
    factors={NORM: "layer norm", "l2(0.0001)": "L2", "l2": "L2"},
)
