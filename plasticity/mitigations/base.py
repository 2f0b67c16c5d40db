"""The mitigation contract: one frozen config with up to four pure hooks, each the identity by default.

    network(architecture)              layer norm, nonlinearities, output heads
    penalty(params, context)           a scalar added to the loss
    optimizer(tx, setting)             a transformation around the optimiser: decay, projections, resets of units
    on_event(key, learner, setting)    what happens at a task switch: shrink and perturb, full reset

A mitigation is one file. Strengths are traced fields; `neutral()` gives the member with zero strength, which must
equal absence numerically (a contract test), so that the runs with and without it can share a compiled program.
The order in which hooks are folded is `plasticity.mitigations.compose`'s, whatever the order in the spec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import jax
import optax

from plasticity.config import Config
from plasticity.network import Activation, Network, Params
from plasticity.networks.base import Architecture
from plasticity.registry import Family


class Learner(NamedTuple):
    """What training changes. variables: the network's collections, `params` among them; opt_state: the optimiser's."""

    variables: dict[str, Any]
    opt_state: Any


@dataclass(frozen=True)
class Context:
    """What a penalty may look at, beside the parameters: activations of the batch, parameters at initialisation."""

    network: Network
    initial_params: Params
    activations: Mapping[str, Activation]


@dataclass(frozen=True)
class Setting:
    """What a reset needs to know of the run.

    network: with its unit graph. initializer: key -> fresh variables, drawn by the layers' own initialisers.
    learning_rate: of the inner optimiser. key: this run's mitigation stream. tx: the composed optimiser, for events.
    """

    network: Network
    initializer: Callable[[jax.Array], dict[str, Any]]
    learning_rate: Any
    key: jax.Array
    tx: optax.GradientTransformationExtraArgs | None = None


class Mitigation(Config):
    """Base of mitigations. Class attributes say how a member composes.

    stage: position in the fold, see `compose.STAGES`. resets_units: True asks the optimiser for per-entry counts.
    reference: author, year, identifier.
    """

    name: ClassVar[str]
    reference: ClassVar[str] = ""
    stage: ClassVar[str]
    resets_units: ClassVar[bool] = False

    def neutral(self) -> Self | None:
        """This mitigation at zero strength, equal to its absence; None for a structural choice without a strength."""
        return None

    def network(self, architecture: Architecture) -> Architecture:
        """The architecture with this mitigation in it."""
        return architecture

    def penalty(self, params: Params, context: Context) -> jax.Array | float:
        """A scalar added to the mean loss of the batch."""
        return 0.0

    def optimizer(
        self, tx: optax.GradientTransformationExtraArgs, setting: Setting
    ) -> optax.GradientTransformationExtraArgs:
        """The optimiser with this mitigation around it."""
        return tx

    def on_event(self, key: jax.Array, learner: Learner, setting: Setting) -> Learner:
        """The learner after a task switch."""
        return learner


mitigations: Family[Mitigation] = Family("mitigation", "plasticity.mitigations")
