"""What the parts of a study are called: supervised streams have tasks, reinforcement learning has iterations of games.

Both kinds share one record schema. A "task" of the schema is, in reinforcement learning, an *iteration*: a fixed
number of environment frames. Readers must not have to know that, so every sentence takes its nouns from here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """Nouns and phrases of one kind of study.

    unit: what `task_index` counts. kind: what an entry of `study.tasks` is. late: what the late score is. afresh: the
    reference. best, gains: what a difference above 0 means. worst: what a diverged run counts as; worst_at_length: the
    same as a whole verb phrase. guess: the score without having learned.
    """

    unit: str
    units: str
    kind: str
    kinds: str
    late: str
    afresh: str
    best: str
    gains: str
    worst: str
    worst_at_length: str
    guess: str


SUPERVISED = Terms(
    unit="task",
    units="tasks",
    kind="task kind",
    kinds="task kinds",
    late="the score at the end of the last fifth of the tasks",
    afresh="a network that starts afresh at every task",
    best="kept the network trainable best",
    gains="so it gains from earlier tasks",
    worst="score 0",
    worst_at_length="scores 0",
    guess="chance",
)
RL = Terms(
    unit="iteration",
    units="iterations",
    kind="game",
    kinds="games",
    late="the mean score over the last fifth of the iterations",
    afresh="a network that starts afresh at every switch",
    best="reached the highest late score",
    gains="so it gains from what was learned before",
    worst="the worst score of the game",
    worst_at_length="gets the worst score of its game (that of random play where it is known)",
    guess="random policy",
)


def terms(kind: str) -> Terms:
    """The terms of a study by the `kind` in its study.json."""
    return RL if kind == "rl" else SUPERVISED
