"""The mitigation contract: one frozen config with a few pure hooks, each the identity by default.

    network(architecture)               normalisation, nonlinearity, output head, residual blocks
    base(config)                        another optimiser, or the same with other hyperparameters
    penalty(params, context)            a scalar added to the loss
    gradient(grad_fn)                   how the gradient is computed: at a perturbed point, say
    optimizer(tx, setting)              a transformation around the optimiser: decay, projections, resets of units
    memory(variables, network)          what the member carries from update to update, beside the optimiser's state
    after_update(learner, context)      what it does after each update: refresh its memory, rescale an output layer
    on_event(key, learner, setting, event)   what happens at a task switch: shrink and perturb, full reset

A mitigation is one file. Strengths are traced fields; `neutral()` gives the member with zero strength, which must
equal absence numerically (a contract test). The order in which hooks are folded is `plasticity.mitigations.compose`'s,
whatever the order in the spec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self

import jax
import optax

from plasticity.config import Config
from plasticity.errors import UserError
from plasticity.network import Activation, Network, Params
from plasticity.networks.base import Architecture
from plasticity.optimizers.base import OptimizerConfig
from plasticity.registry import Family

#: `params -> (gradient, whatever else came out of the pass)`.
GradFn = Callable[[Params], tuple[Params, Any]]


class Learner(NamedTuple):
    """What training changes. variables: the network's collections, `params` among them, and the mitigations' `memory`;
    opt_state: the optimiser's."""

    variables: dict[str, Any]
    opt_state: Any


#: What members may need of a context, in words: not every loop has each.
NEEDED = {
    "outputs": "the network's outputs on the batch",
    "inputs": "the inputs of the batch",
    "targets": "the targets of the batch",
    "loss": "the loss as a function of the parameters",
    "reference": "another batch of inputs of the same stream",
    "following": "the activations on the next observations, which only an agent has",
    "memory": "the member's memory, which `compose.initial` makes and `compose.penalty` finds in `variables`",
}


@dataclass(frozen=True)
class Context:
    """What a penalty may look at, beside the parameters.

    initial: the network's variables at initialisation. activations, outputs: of the batch. variables: all collections.
    inputs, targets: the batch. loss: params -> mean loss of the batch without penalties. reference: gives another batch
    of inputs of the same stream. following: gives the activations on the next observations, None outside RL. memory:
    the asking member's own. What a loop of one's own does not have may be left out; a member that needs it says so.
    """

    network: Network
    initial: Mapping[str, Any]
    activations: Mapping[str, Activation]
    outputs: jax.Array | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    inputs: jax.Array | None = None
    targets: jax.Array | None = None
    loss: Callable[[Params], jax.Array] | None = None
    reference: Callable[[], jax.Array] | None = None
    following: Callable[[], Mapping[str, Activation]] | None = None
    memory: Any = None

    def need(self, name: str, member: str) -> Any:
        """The field `name`; a `UserError` of the mitigation `member` where the loop did not give it."""
        value = getattr(self, name)
        if value is None:
            raise UserError(f"{member} needs {NEEDED[name]}: pass Context({name}=...)")
        return value

    @property
    def initial_params(self) -> Params:
        """Parameters at initialisation."""
        return self.initial["params"]


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

    def restarted(self, variables: Mapping[str, Any]) -> Any:
        """A fresh state of the optimiser for these variables."""
        assert self.tx is not None, "a setting for events has the composed optimiser"
        return self.tx.init(variables["params"])


@dataclass(frozen=True)
class Event:
    """A task switch, or a periodic event of an agent.

    number: of this event, from 1 (int32 scalar). inputs: key -> a batch of inputs of what is to be learned now.
    gradient: (variables, key) -> gradient of the mean loss on such a batch, with its targets, without penalties.
    """

    number: jax.Array
    inputs: Callable[[jax.Array], jax.Array]
    gradient: Callable[[Mapping[str, Any], jax.Array], Params]


class Mitigation(Config):
    """Base of mitigations. Class attributes say how a member composes.

    stage: position in the fold, see `compose.STAGES`. optimizer_stage: position of its `optimizer` hook, where that is
    another. resets_units: True asks the optimiser for per-entry counts. padded: True where the member at zero strength
    costs next to nothing, so that a sweep may give it to runs without it and compile one program for both. needs: names
    of fields of the context without which it cannot work. cost: in words. reference: author, year, identifier.
    """

    name: ClassVar[str]
    reference: ClassVar[str] = ""
    cost: ClassVar[str] = "next to nothing"
    stage: ClassVar[str]
    optimizer_stage: ClassVar[str] = ""
    resets_units: ClassVar[bool] = False
    padded: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()

    def neutral(self) -> Self | None:
        """This mitigation at zero strength, equal to its absence; None for a structural choice without a strength."""
        return None

    def check(self, others: Sequence[Mitigation]) -> None:
        """Raise `UserError` where this member cannot stand together with one of the others."""

    def network(self, architecture: Architecture) -> Architecture:
        """The architecture with this mitigation in it."""
        return architecture

    def base(self, config: OptimizerConfig) -> OptimizerConfig:
        """The optimiser that the others are folded around."""
        return config

    def penalty(self, params: Params, context: Context) -> jax.Array | float:
        """A scalar added to the mean loss of the batch."""
        return 0.0

    def gradient(self, grad_fn: GradFn) -> GradFn:
        """The gradient of loss and penalties, computed in another way."""
        return grad_fn

    def optimizer(
        self, tx: optax.GradientTransformationExtraArgs, setting: Setting
    ) -> optax.GradientTransformationExtraArgs:
        """The optimiser with this mitigation around it.

        Its `update` gets from the loop, as far as that has them, and passes on: `activations=` of the batch, `step=`,
        the number of the update in the run from 0, and `elapsed=`, the share of the current task that has passed.
        """
        return tx

    def memory(self, variables: Mapping[str, Any], network: Network) -> Any:
        """The member's memory at the start, a pytree of arrays; None if it has none.

        It lives in `variables["memory"][name]`, is saved with them, and starts again with a fresh network.
        """
        return None

    def after_update(self, learner: Learner, context: Context) -> Learner:
        """The learner after an update; `context` is that of the update's batch. Only for members with a memory."""
        return learner

    def on_event(self, key: jax.Array, learner: Learner, setting: Setting, event: Event) -> Learner:
        """The learner after a task switch."""
        return learner


mitigations: Family[Mitigation] = Family("mitigation", "plasticity.mitigations")
