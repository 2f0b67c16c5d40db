"""The probes: their stated values against a table learned from their rows, rightly and wrongly."""

import numpy as np
import pytest

from plasticity.errors import UserError
from rl.envs import make
from rl.envs.probes import PROBES, expected
from rl.protocols import protocols

PLAIN = protocols.members()["plain"]
GAMMA = 0.9


def _transitions(name: str, steps: int = 400) -> list[tuple]:
    """(observation, action, reward, next, over, truncated, life lost, frame after the next) of random play."""
    env = make(name, 2, PLAIN())
    rng = np.random.default_rng(0)
    rows, actions = [env.restart([3, 4])], []
    for _ in range(steps):
        actions.append(rng.integers(2, size=2))
        env.send(actions[-1])
        rows.append(env.recv())
    return [
        (
            tuple(rows[t].frame[i].tolist()),
            int(actions[t][i]),
            float(rows[t + 1].reward[i]),
            tuple(rows[t + 1].frame[i].tolist()),
            bool(rows[t + 1].over[i]),
            bool(rows[t + 1].truncated[i]),
            bool(rows[t + 1].lives[i] < rows[t].lives[i]),
            tuple(rows[t + 2].frame[i].tolist()),
        )
        for t in range(steps - 1)
        for i in range(2)
        if not rows[t + 1].first[i]
    ]


def _learn(transitions, *, life_loss="off", truncation="right") -> dict:
    """Q-learning to convergence: the table in which every entry is the mean of its targets."""
    table = {(s, a): 0.0 for s, a, *_ in transitions}
    for _ in range(300):
        targets: dict = {key: [] for key in table}
        for s, a, reward, seen, over, truncated, lost, after in transitions:
            if truncated and truncation == "reset_frame":
                seen = after
            stop = over or (lost and life_loss != "off") or (truncated and truncation == "end")
            best = max((table[k] for k in ((seen, 0), (seen, 1)) if k in table), default=0.0)
            targets[s, a].append(reward + (0.0 if stop else GAMMA * best))
        table = {key: float(np.mean(found)) for key, found in targets.items()}
    return table


def _expected(name, **options) -> dict:
    return {(s, a): v for s, values in expected(name, GAMMA, **options).items() for a, v in enumerate(values)}


@pytest.mark.parametrize("name", PROBES)
def test_the_stated_values_are_those_that_a_table_learns(name):
    assert _learn(_transitions(name)) == pytest.approx(_expected(name))


@pytest.mark.parametrize(
    ("name", "gamma", "values"),
    [
        ("probe_value", 0.5, {(0.0,): (1, 1)}),
        ("probe_observation", 0.5, {(-1.0,): (-1, -1), (1.0,): (1, 1)}),
        ("probe_discount", 0.5, {(0.0,): (0.5, 0.5), (1.0,): (1, 1)}),
        ("probe_action", 0.5, {(0.0,): (-1, 1)}),
        ("probe_action_observation", 0.5, {(-1.0,): (1, -1), (1.0,): (-1, 1)}),
        ("probe_truncation", 0.5, {(0.0,): (1, 1), (1.0,): (2, 2)}),
        ("probe_life", 0.5, {(0.0,): (1.5, 1.5), (1.0,): (1, 1)}),
    ],
)
def test_values_by_hand(name, gamma, values):
    assert expected(name, gamma) == values


def test_a_wrong_target_at_a_truncation_shows():
    seen = _transitions("probe_truncation")
    right = _learn(seen)[(1.0,), 0]
    ended = np.mean([_learn(seen, truncation="end")[(1.0,), a] for a in (0, 1)])
    reset = np.mean([_learn(seen, truncation="reset_frame")[(1.0,), a] for a in (0, 1)])
    assert right == pytest.approx(10)
    # The documented values hold for equal shares of cut-off steps; random actions make them nearly equal.
    assert ended == pytest.approx(1 / (1 - GAMMA / 2), rel=0.1)
    assert reset == pytest.approx(1 / (1 - GAMMA * (1 + GAMMA) / 2), rel=0.15)


@pytest.mark.parametrize("life_loss", ["off", "discount", "episode"])
def test_a_lost_life_is_worth_what_the_protocol_says(life_loss):
    assert _learn(_transitions("probe_life"), life_loss=life_loss) == pytest.approx(
        _expected("probe_life", life_loss=life_loss)
    )


def test_an_unknown_probe_is_a_user_error():
    with pytest.raises(UserError, match="Did you mean 'probe_value'"):
        expected("probe_valu", GAMMA)
