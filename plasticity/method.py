"""What learns: a network, an optimiser and mitigations, as one pytree whose leaves are the strengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax

from plasticity.mitigations import compose
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


def padded(methods: Sequence[Method]) -> list[Method]:
    """Each method with the neutral elements of what others of its kind have and it lacks, where members allow that.

    Methods that then have one structure share compiled programs: {layer norm} x {L2} is two programs, not four.
    """
    result: list[Method] = []
    for method in methods:
        own = {m.name for m in method.mitigations}
        core = _core(method)
        extra: dict[str, Mitigation] = {}
        for other in methods:
            if _core(other) != core:
                continue
            for member in other.mitigations:
                neutral = member.neutral() if member.padded else None
                if neutral is not None and member.name not in own:
                    extra.setdefault(member.name, neutral)
        result.append(replace(method, mitigations=compose.canonical((*method.mitigations, *extra.values()))))
    return result


def _core(method: Method) -> Any:
    """What padding cannot make equal: the members without a cheap neutral element."""
    fixed = tuple(m for m in method.mitigations if not m.padded or m.neutral() is None)
    return jax.tree.structure(fixed)
