"""Plasticity injection (Nikishin et al. 2023, arXiv:2305.15555): a network with room for two frozen ones beside it.

f(x) = f_new(x) - f_anchor(x) + f_old(x). The trained collections are those of f_new, so that the tree of trained
parameters, the unit graph, the optimiser and the diagnostics stay what they are. The collection `frozen` holds `old`
and `anchor`, each with all collections of a network, and `active`, 0 before the injection and 1 after it: a scalar
that may differ between mapped runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from plasticity.network import Network

#: Collections that are no part of one network.
BESIDE = ("frozen", "memory")


def own(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The collections of one network among all."""
    return {name: tree for name, tree in variables.items() if name not in BESIDE}


def frozen(old: Mapping[str, Any], anchor: Mapping[str, Any], active: float) -> dict[str, Any]:
    """The collection `frozen`, from copies: what is trained and what is not must not share a buffer."""
    copies = jax.tree.map(jnp.copy, {"old": own(old), "anchor": own(anchor)})
    return {**copies, "active": jnp.asarray(active, jnp.float32)}


def injectable(network: Network) -> Network:
    """The network with the collection `frozen`; as it was, to the bit, until `active` is 1.

    (f_new - f_anchor) + f_old, in this order: while f_new and f_anchor are equal their difference is exactly 0. All
    three see the same noise and take statistics of the batch in training; the frozen ones keep theirs of before.
    """

    def init(key: jax.Array, x: jax.Array) -> dict[str, Any]:
        variables = network.init(key, x)
        return {**variables, "frozen": frozen(variables, variables, 0.0)}

    def apply(variables: Mapping[str, Any], x: jax.Array, noise: jax.Array | None = None, train: bool = False):
        new, activations, new_state = network.apply(own(variables), x, noise, train)
        if "frozen" not in variables:
            return new, activations, new_state
        parts = jax.lax.stop_gradient(variables["frozen"])

        def beside() -> tuple[jax.Array, jax.Array]:
            return network.apply(parts["anchor"], x, noise, train)[0], network.apply(parts["old"], x, noise, train)[0]

        # A branch where runs are not mapped: before the injection the frozen passes cost nothing then.
        active = parts["active"] > 0
        anchor, old = jax.lax.cond(active, beside, lambda: (jnp.zeros_like(new), jnp.zeros_like(new)))
        return jnp.where(active, (new - anchor) + old, new), activations, new_state

    return replace(network, init=init, apply=apply)
