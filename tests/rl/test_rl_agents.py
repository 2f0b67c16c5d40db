"""The presets against the tables of their sources, converted: 4 frames an agent step, 4 agent steps an update."""

import math

import pytest

from plasticity import spec
from plasticity.errors import UserError
from plasticity.networks.base import networks
from plasticity.optimizers import optimizers
from rl.agents import agents
from rl.protocols import protocols

STEP, UPDATE = 4, 16
"""Frames of an agent step and of an update."""

MEMBERS = agents.members()
NO_PRIORITY = {"priority": "none"}
DQN_ZOO = {
    "batch_size": 32,  # transitions
    "replay_steps": 1_000_000,  # agent steps
    "replay_ratio": STEP / UPDATE,  # updates an agent step
    "gamma": 0.99,
}
DOPAMINE = {
    **DQN_ZOO,
    "min_replay_steps": 20_000,  # agent steps
    "target_updates": 8_000 // 4,  # 8,000 agent steps
    "epsilon_start": 1.0,
    "epsilon_end": 0.01,
    "epsilon_decay_steps": 250_000,  # agent steps
    "eval_epsilon": 0.001,
    "max_gradient_norm": 0.0,
}
RAINBOW = {"double": True, "dueling": True, "noise": 0.1, "atoms": 51, "value_max": 10.0}
NATURE_START = {"min_replay_steps": 1_000_000 * 5 // 100, "epsilon_start": 1.0}
DECAY = {"epsilon_decay_steps": 4_000_000 // STEP}
BY_ROOT = {"priority": "sqrt_loss", "priority_exponent": 1.0, "importance_start": 0.5, "importance_end": 0.5}

TABLE = {
    "dqn": {
        **DQN_ZOO,
        **NATURE_START,
        **DECAY,
        **NO_PRIORITY,
        "double": False,
        "dueling": False,
        "noise": 0.0,
        "atoms": 0,
        "loss": "huber",  # the squared loss with its gradient clipped
        "n_step": 1,
        "target_updates": 40_000 // UPDATE,
        "epsilon_end": 0.1,
        "eval_epsilon": 0.05,
        "max_gradient_norm": 0.0,
    },
    "double_dqn": {
        **DQN_ZOO,
        **NATURE_START,
        **DECAY,
        **NO_PRIORITY,
        "double": True,
        "atoms": 0,
        "n_step": 1,
        "target_updates": 120_000 // UPDATE,
        "epsilon_end": 0.01,
        "eval_epsilon": 0.01,
    },
    "prioritized": {
        **DQN_ZOO,
        **NATURE_START,
        **DECAY,
        "double": True,
        "atoms": 0,
        "n_step": 1,
        "target_updates": 120_000 // UPDATE,
        "priority": "td",
        "priority_exponent": 0.6,
        "importance_start": 0.4,
        "importance_end": 1.0,
        "uniform_share": 1e-3,
        "epsilon_end": 0.01,
        "eval_epsilon": 0.01,
    },
    "c51": {
        **DQN_ZOO,
        **NATURE_START,
        **DECAY,
        **NO_PRIORITY,
        "double": False,
        "atoms": 51,
        "value_max": 10.0,
        "n_step": 1,
        "target_updates": 40_000 // UPDATE,
        "max_gradient_norm": 10.0,
        "epsilon_end": 0.01,
    },
    "rainbow": {
        **DQN_ZOO,
        **RAINBOW,
        "n_step": 3,
        "min_replay_steps": 1_000_000 * 2 // 100,
        "target_updates": 32_000 // UPDATE,
        "priority": "loss",
        "priority_exponent": 0.5,
        "importance_start": 0.4,
        "importance_end": 1.0,
        "uniform_share": 1e-3,
        "max_gradient_norm": 10.0,
        "epsilon_start": 0.0,
        "epsilon_end": 0.0,
        "eval_epsilon": 0.0,
    },
    "dopamine_dqn": {**DOPAMINE, **NO_PRIORITY, "atoms": 0, "loss": "mse", "n_step": 1, "double": False},
    "dopamine_rainbow": {
        **DOPAMINE,
        **BY_ROOT,
        "atoms": 51,
        "value_max": 10.0,
        "n_step": 3,
        "double": False,
        "dueling": False,
        "noise": 0.0,
        "uniform_share": 0.0,
    },
    "dopamine_full_rainbow": {**DOPAMINE, **BY_ROOT, **RAINBOW, "n_step": 3},
    "der": {
        **DOPAMINE,
        **BY_ROOT,
        **RAINBOW,
        "n_step": 10,
        "min_replay_steps": 1_600,
        "replay_ratio": 1.0,
        "target_updates": 2_000,  # agent steps, and there is one update in each
        "epsilon_decay_steps": 2_000,
    },
    "drq_eps": {
        **DOPAMINE,
        **NO_PRIORITY,
        "double": True,
        "dueling": True,
        "noise": 0.0,
        "atoms": 0,
        "n_step": 10,
        "min_replay_steps": 1_600,
        "replay_ratio": 1.0,
        "target_updates": 1,
        "epsilon_decay_steps": 5_000,
    },
}

ZOO_NETWORK = {"width": 512, "padding": "VALID", "init": "uniform"}
DOPAMINE_NETWORK = {"width": 512, "padding": "SAME", "init": "xavier"}
ZOO_RMSPROP = {"decay": 0.95, "eps": 0.01 / 32**2, "centered": True}
DOPAMINE_ADAM = {"lr": 6.25e-5, "b1": 0.9, "b2": 0.999, "eps": 1.5e-4}
AROUND = {
    "dqn": (ZOO_NETWORK, "rmsprop", {"lr": 2.5e-4, **ZOO_RMSPROP}, "nature"),
    "double_dqn": (ZOO_NETWORK, "rmsprop", {"lr": 2.5e-4, **ZOO_RMSPROP}, "nature"),
    "prioritized": (ZOO_NETWORK, "rmsprop", {"lr": 2.5e-4 / 4, **ZOO_RMSPROP}, "nature"),
    "c51": (ZOO_NETWORK, "adam", {"lr": 2.5e-4, "eps": 0.01 / 32}, "nature"),
    "rainbow": (ZOO_NETWORK, "adam", {"lr": 6.25e-5, "eps": 0.005 / 32}, "nature"),
    "dopamine_dqn": (DOPAMINE_NETWORK, "adam", DOPAMINE_ADAM, "machado"),
    "dopamine_rainbow": (DOPAMINE_NETWORK, "adam", DOPAMINE_ADAM, "machado"),
    "dopamine_full_rainbow": (DOPAMINE_NETWORK, "adam", DOPAMINE_ADAM, "machado"),
    "der": (DOPAMINE_NETWORK, "adam", {**DOPAMINE_ADAM, "lr": 1e-4}, "atari100k"),
    "drq_eps": (DOPAMINE_NETWORK, "adam", {**DOPAMINE_ADAM, "lr": 1e-4}, "atari100k"),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_numbers_of_a_preset(name):
    built = MEMBERS[name]()
    assert {field: getattr(built, field) for field in TABLE[name]} == TABLE[name]


@pytest.mark.parametrize("name", AROUND)
def test_what_a_preset_comes_with(name):
    network, kind, optimizer, protocol = AROUND[name]
    member = MEMBERS[name]
    built = spec.build_one(member.network, networks)
    assert built.name == "nature"
    assert {field: getattr(built, field) for field in network} == network
    tx = spec.build_one(member.optimizer, optimizers)
    assert tx.name == kind
    assert {field: getattr(tx, field) for field in optimizer} == pytest.approx(optimizer)
    assert spec.build_one(member.protocol, protocols).name == protocol


@pytest.mark.parametrize("name", MEMBERS)
def test_every_preset_names_what_exists(name):
    member = MEMBERS[name]
    for text, family in ((member.network, networks), (member.optimizer, optimizers), (member.protocol, protocols)):
        spec.build_one(text, family)
    assert member.reference or name.startswith("small_")


@pytest.mark.parametrize(
    ("name", "points"),
    [
        # Constant until updates begin, then a line from start to end.
        ("dqn", {0: 1.0, 50_000: 1.0, 550_000: 0.55, 800_000: 0.325, 1_050_000: 0.1, 10**9: 0.1}),
        ("dopamine_dqn", {0: 1.0, 20_000: 1.0, 145_000: 0.505, 270_000: 0.01, 270_001: 0.01}),
        ("der", {1_599: 1.0, 1_600: 1.0, 2_600: 0.505, 3_600: 0.01, 100_000: 0.01}),
        ("drq_eps", {1_600: 1.0, 4_100: 0.505, 6_600: 0.01}),
        ("rainbow", {0: 0.0, 20_000: 0.0, 10**7: 0.0}),
    ],
)
def test_random_actions_by_hand(name, points):
    built = MEMBERS[name]()
    assert {steps: built.epsilon(steps) for steps in points} == pytest.approx(points)


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("prioritized", {0.0: 0.4, 0.25: 0.55, 0.5: 0.7, 1.0: 1.0, 1.5: 1.0, -1.0: 0.4}),
        ("rainbow", {0.0: 0.4, 0.5: 0.7, 1.0: 1.0}),
        ("dopamine_rainbow", {0.0: 0.5, 0.3: 0.5, 1.0: 0.5}),
        ("der", {0.0: 0.5, 1.0: 0.5}),
    ],
)
def test_the_importance_exponent_by_hand(name, points):
    built = MEMBERS[name]()
    assert {share: built.importance(share) for share in points} == pytest.approx(points)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("c51(atoms=1)", "atoms"),
        ("dqn(replay_steps=1000)", "min_replay_steps"),
        ("dqn(gamma=1.5)", "gamma"),
        ("dqn(n_step=0)", "n_step"),
        ("dqn(priority=rank)", "priority"),
        ("dqn(loss=mae)", "loss"),
        ("dqn(replay_ratio=0)", "replay_ratio"),
        ("dqn(value_max=0)", "value_max"),
        ("rainbw", "rainbow"),
        ("dqn(targt_updates=3)", "target_updates"),
    ],
)
def test_impossible_agents_are_refused_with_the_name_of_what_is_wrong(text, word):
    with pytest.raises(UserError, match=word):
        spec.build_one(text, agents)


def test_presets_differ_in_fields_only_and_print_only_what_was_changed():
    built = spec.build_one("rainbow(n_step=5, gamma=0.99)", agents)
    assert spec.to_text(built) == "rainbow(n_step=5)"
    assert math.isclose(built.importance(0.5), 0.7)
