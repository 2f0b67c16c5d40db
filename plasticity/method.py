"""What learns: a network, an optimiser and mitigations, as one pytree whose leaves are the strengths."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax

from plasticity.mitigations.base import Mitigation
from plasticity.networks.base import NetworkConfig
from plasticity.optimizers.base import OptimizerConfig


@partial(jax.tree_util.register_dataclass, data_fields=["network", "optimizer", "mitigations"], meta_fields=[])
@dataclass(frozen=True)
class Method:
    """A network, an optimiser and mitigations in canonical order. Strengths are the leaves."""

    network: NetworkConfig
    optimizer: OptimizerConfig
    mitigations: tuple[Mitigation, ...] = ()
