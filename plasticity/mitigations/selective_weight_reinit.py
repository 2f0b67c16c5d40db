"""Selective weight reinitialisation, SWR (Hernandez-Garcia et al. 2025): redraw single weights of low utility."""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp
import optax

from plasticity.config import static, traced
from plasticity.mitigations.base import Mitigation, Setting, mitigations
from plasticity.mitigations.penalties import roles
from plasticity.mitigations.recycling import reset_state
from plasticity.mitigations.resets import Seen, every, resetting
from plasticity.network import Params, Path, get_at, set_at
from plasticity.rng import named


def below_threshold(utility: jax.Array, factor: Any) -> jax.Array:
    """Entries whose utility is at most factor times the tensor's mean. None where all are 0, for a negative factor."""
    mean = jnp.mean(utility)
    return (utility <= factor * mean) & (mean > 0) & (factor >= 0)


def lowest_share(key: jax.Array, utility: jax.Array, factor: Any) -> jax.Array:
    """A share `factor` of the entries, those of the lowest utility.

    Their number factor x size is rounded up with the probability of its fraction, so it is right on average. Of equal
    utilities those that come first are taken.
    """
    wanted = jnp.clip(factor, 0.0, 1.0) * utility.size
    whole = jnp.floor(wanted)
    count = whole.astype(jnp.int32) + jax.random.bernoulli(key, wanted - whole)
    order = jnp.argsort(utility.ravel(), stable=True)
    among = jnp.zeros(utility.size, bool).at[order].set(jnp.arange(utility.size) < count)
    return among.reshape(utility.shape)


@mitigations.register("selective_weight_reinit")
class SelectiveWeightReinit(Mitigation):
    """Every `every` updates, replace in each tensor of weights and in each of biases the entries of lowest utility.

    utility u   gradient: |w dL/dw|, magnitude: |w|, random: uniform     (w after the update, g of its batch)
    prune       threshold: all with u <= factor x mean u of the tensor;  share: the lowest factor x size, the number
                rounded up with the probability of its fraction
    value       resample: a fresh draw by the layer's own initialiser;  mean: that law's mean, which is 0 for what is
                drawn at random (all of the suite's laws are symmetric) and the value itself for what is constant

    The optimiser's state of exactly the replaced entries restarts; in the authors' code it does not, though an option
    of that name exists. With factor 0 the threshold still replaces exact zeros, a negative factor nothing. A tensor
    whose utilities are all 0, as a bias at initialisation, is left alone by the threshold (elsewhere every entry of it
    counts as replaced). Norm scales and offsets, and deviations of
    noisy layers, are left alone.

    Source: gradient, threshold, resample with factor 1e-5 every 2,048 updates for a large network, 5e-4 every 128 for
    a transformer; share with .4 every 2,400. Redrawing a weight that is not 0 changes the network's function.
    """

    reference = "Hernandez-Garcia et al. 2025, CoLLAs (selective weight reinitialisation)"
    cost = "nothing between its updates; share: a sort of every tensor"
    stage = "reset"
    resets_units = True

    factor: float = traced(1e-5, ge=-1, positional=True, help="times the mean utility, or share; negative: none")
    every: int = static(2048, ge=1, unit="updates", help="period")
    utility: str = static("gradient", choices=("gradient", "magnitude", "random"), help="of a weight")
    prune: str = static("threshold", choices=("threshold", "share"), help="which are replaced")
    value: str = static("resample", choices=("resample", "mean"), help="by what")

    def neutral(self) -> Self:
        return type(self)(-1.0, self.every, self.utility, self.prune, self.value)

    def optimizer(
        self, tx: optax.GradientTransformationExtraArgs, setting: Setting
    ) -> optax.GradientTransformationExtraArgs:
        """Wrap `tx`; see `resets.resetting` for what `update` takes; `activations=` may be left out."""

        def pruned(path: Path, w: jax.Array, g: jax.Array, key: jax.Array) -> jax.Array:
            key = named(key, "/".join(path))
            if self.utility == "random":
                u = jax.random.uniform(named(key, "utility"), w.shape)
            else:
                u = jnp.abs(w * g) if self.utility == "gradient" else jnp.abs(w)
            return below_threshold(u, self.factor) if self.prune == "threshold" else lowest_share(key, u, self.factor)

        def reset(params: Params, inner: Any, memory: Any, seen: Seen):
            key = jax.random.fold_in(seen.key, seen.number)
            touched = jax.tree.map(lambda p: jnp.zeros(p.shape, bool), params)
            found = roles(params, setting.network)
            for path in (*found.weights, *found.biases):
                mask = pruned(path, get_at(params, path), get_at(seen.gradient, path), key)
                touched = set_at(touched, path, mask)
            value = setting.initializer(key)["params"]
            if self.value == "mean":
                # What is the same in two draws is constant; what is drawn has mean 0.
                other = setting.initializer(named(key, "other"))["params"]
                value = jax.tree.map(lambda a, b: jnp.where(a == b, a, 0.0), value, other)
            params = jax.tree.map(jnp.where, touched, value, params)
            return params, reset_state(tx, inner, touched, params), memory

        return resetting(self.name, tx, setting, fires=every(self.every), reset=reset, reads_activations=False)
