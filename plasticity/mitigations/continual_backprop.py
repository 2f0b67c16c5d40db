"""Continual backprop (Dohare et al. 2024, doi:10.1038/s41586-024-07711-7): replace the least useful mature units."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax

from plasticity.config import static, traced
from plasticity.diagnostics.arrays import as_rows
from plasticity.diagnostics.base import width_of
from plasticity.diagnostics.tracking import Utility, contribution, reset_utility, start_utility, update_utility, utility
from plasticity.errors import UserError
from plasticity.mitigations.base import Mitigation, Setting, mitigations
from plasticity.mitigations.recycling import Kept, recycle
from plasticity.mitigations.resets import Seen, anywhere, resetting, units_of
from plasticity.network import Outgoing, Params, Path, UnitLayer, get_at, set_at

#: The replacement rate is a multiple of 1 / LIMB^2.
LIMB = 10**4


class Owed(NamedTuple):
    """Replacements owed to a layer: now, and the fraction of the next one as high / LIMB + low / LIMB^2; int32."""

    now: jax.Array
    high: jax.Array
    low: jax.Array


def owing(owed: Owed, rate: jax.Array | float, eligible: jax.Array) -> Owed:
    """What is owed after an update with so many eligible units: rate x eligible more, in exact arithmetic.

    In floating point the fraction drifts: .01 a hundred times is below 1 in float32. The rate is taken as an integer
    multiple of 1e-8, and products and carries are of int32, enough for 200,000 units a layer.
    """
    units = jnp.round(jnp.asarray(rate, jnp.float32) * float(LIMB**2)).astype(jnp.int32)
    low = owed.low + eligible * (units % LIMB)
    high = owed.high + eligible * (units // LIMB) + low // LIMB
    return Owed(high // LIMB, high % LIMB, low % LIMB)


def lowest(values: jax.Array, among: jax.Array, count: jax.Array) -> jax.Array:
    """Mask of the `count` lowest of the values that are `among`; NaN is lowest; of equal ones those of lower index."""
    values = jnp.where(jnp.isnan(values), -jnp.inf, values)
    order = jnp.argsort(jnp.where(among, values, jnp.inf), stable=True)
    rank = jnp.zeros(values.shape, jnp.int32).at[order].set(jnp.arange(values.size, dtype=jnp.int32))
    return among & (rank < count)


class Tracked(NamedTuple):
    """A layer's units. utility: average and age; mean: moving average of each feature, not corrected; owed."""

    utility: Utility
    mean: jax.Array
    owed: Owed


class Memory(NamedTuple):
    """layers: `Tracked` by name; pool: fresh parameters, `Kept` out of the resets of others."""

    layers: dict[str, Tracked]
    pool: Kept


@mitigations.register("continual_backprop")
class ContinualBackprop(Mitigation):
    """In every update and layer, replace a share `rate` of the mature units, those of the lowest utility.

        age_i <- age_i + 1,   u_i <- decay u_i + (1 - decay) y_i,   u^_i = u_i / (1 - decay^age_i)
        owed <- owed + rate x number of units with age > maturity;   replace the floor(owed) of these with least u^

    y_i of this batch and the updated weights, with sums over all outgoing kernels:

        contribution        mean |h_i| x sum |W_out,i|
        zero_contribution   mean |h_i - m_i| x sum |W_out,i|, m_i the corrected moving average of h_i
        adaptable           contribution / mean |W_in,i|

    A replaced unit gets fresh incoming weights, bias and norm parameters, outgoing weights of zero, and age and utility
    0; the optimiser's state of these entries restarts. With `transfer` the mean of what it contributed, m_i W_out,i,
    is first added to the next layers' biases (not of units that are replaced, too); in the authors' code this step has
    no effect. It leaves the function exactly unchanged where the unit was constant. Through a convolution with padding
    it is off at the borders, and where a unit has many positions m_i is their mean.

    Fresh weights come from a pool: one draw of all parameters by the layers' own initialisers every `pool_every`
    updates; a unit takes its own entries. So no update draws, and since a unit lives for at least maturity + 1 updates,
    no entry of the pool is used twice: all fresh weights are independent and each has its initialiser's law.

    Defaults: rate 1e-4 (1e-6 to 1e-3 in the source), maturity 100, decay .99. The source's text has the sum of outgoing
    weights, its code the mean, which ranks a layer's units alike. Its code ranks by u^, others by u, in which a young
    unit looks useless. The fraction owed is exact (.01 replaces in update 100, .1 in update 10); the rate is a multiple
    of 1e-8. Deviations in noisy layers count as outgoing weights.
    """

    reference = "Dohare et al. 2024, doi:10.1038/s41586-024-07711-7"
    cost = "utilities in every update, a draw of all parameters every pool_every; memory: one more copy of these"
    stage = "reset"
    resets_units = True

    rate: float = traced(1e-4, ge=0, le=1, positional=True, help="share of mature units replaced in an update")
    decay: float = traced(0.99, ge=0, le=1, help="of the moving averages of utility and activation")
    maturity: int = static(100, ge=0, unit="updates", help="a younger unit, or as old, is not replaced")
    utility: str = static("contribution", choices=("contribution", "zero_contribution", "adaptable"), help="y_i")
    transfer: bool = static(True, help="add the mean contribution to the next biases")
    pool_every: int = static(100, ge=1, unit="updates", help="a new pool of fresh weights after so many")

    def validate(self) -> None:
        if self.pool_every > self.maturity + 1:
            raise UserError(
                f"{self.name}: pool_every must be at most maturity + 1, or a unit could be replaced twice by the same "
                f"weights; got pool_every={self.pool_every}, maturity={self.maturity}"
            )

    def neutral(self) -> Self:
        return type(self)(0.0, self.decay, self.maturity, self.utility, self.transfer, self.pool_every)

    def optimizer(
        self, tx: optax.GradientTransformationExtraArgs, setting: Setting
    ) -> optax.GradientTransformationExtraArgs:
        """Wrap `tx`; see `resets.resetting` for what `update` takes."""
        layers, activation = units_of(self.name, setting), setting.network.activation
        width = width_of(activation)

        def start(params: Params) -> Memory:
            def tracked(layer: UnitLayer) -> Tracked:
                # Arrays of their own: one shared buffer could not be donated three times.
                owed = Owed(*(jnp.zeros((), jnp.int32) for _ in Owed._fields))
                return Tracked(start_utility(layer.units), jnp.zeros(layer.units * width), owed)

            # The pool is drawn before the first unit can be replaced.
            return Memory({layer.name: tracked(layer) for layer in layers}, Kept(jax.tree.map(jnp.zeros_like, params)))

        def follow(layer: UnitLayer, tracked: Tracked, seen: Seen) -> Tracked:
            h = as_rows(seen.activations[layer.name].post)
            outgoing = [get_at(seen.stepped, path) for path in _outgoing(layer)]
            mean = self.decay * tracked.mean + (1 - self.decay) * jnp.mean(h, axis=0)
            tracked = tracked._replace(mean=mean)
            if self.utility == "zero_contribution":
                older = tracked._replace(utility=tracked.utility._replace(age=tracked.utility.age + 1))
                h = h - corrected_mean(older, self.decay)
            y = contribution(h, outgoing, activation)
            if self.utility == "adaptable":
                incoming = jnp.abs(get_at(seen.stepped, layer.kernel))
                y = y / jnp.maximum(jnp.mean(incoming, axis=tuple(range(incoming.ndim - 1))), 1e-8)
            tracked = tracked._replace(utility=update_utility(tracked.utility, y, self.decay))
            eligible = jnp.sum(tracked.utility.age > self.maturity, dtype=jnp.int32)
            return tracked._replace(owed=owing(tracked.owed, self.rate, eligible))

        def track(memory: Memory, seen: Seen) -> Memory:
            due = seen.number % self.pool_every == 0

            def renew(pool: Kept) -> Kept:
                fresh = setting.initializer(jax.random.fold_in(seen.key, seen.number))["params"]
                return Kept(jax.tree.map(lambda new, old: jnp.where(due, new, old), fresh, pool.value))

            pool = jax.lax.cond(anywhere(due), renew, lambda pool: pool, memory.pool)
            return Memory({layer.name: follow(layer, memory.layers[layer.name], seen) for layer in layers}, pool)

        def fires(memory: Memory, seen: Seen) -> jax.Array:
            return jnp.any(jnp.stack([tracked.owed.now > 0 for tracked in memory.layers.values()]))

        def reset(params: Params, inner: Any, memory: Memory, seen: Seen):
            masks = {
                name: lowest(utility(t.utility, self.decay), t.utility.age > self.maturity, t.owed.now)
                for name, t in memory.layers.items()
            }
            if self.transfer:
                params = self._transferred(params, memory, masks, layers)
            params, inner = recycle(tx, params, inner, memory.pool.value, masks, layers)
            renewed = {name: replaced(t, masks[name], width) for name, t in memory.layers.items()}
            return params, inner, memory._replace(layers=renewed)

        return resetting(self.name, tx, setting, fires=fires, reset=reset, start=start, track=track)

    def _transferred(
        self, params: Params, memory: Memory, masks: dict[str, jax.Array], layers: tuple[UnitLayer, ...]
    ) -> Params:
        """Parameters with what the masked units contribute on average added to each next bias."""
        for layer in layers:
            features = jnp.tile(masks[layer.name], memory.layers[layer.name].mean.size // layer.units)
            removed = jnp.where(features, corrected_mean(memory.layers[layer.name], self.decay), 0.0)
            for outgoing in layer.outgoing:
                bias = bias_beside(outgoing.kernel, params, layers)
                if bias is not None:
                    kernel = get_at(params, outgoing.kernel)
                    change = jnp.einsum("i,...io->o", Outgoing(outgoing.kernel).rows(removed, params), kernel)
                    params = set_at(params, bias, get_at(params, bias) + change)
        return params


def corrected_mean(tracked: Tracked, decay: Any) -> jax.Array:
    """The moving average of each feature without its bias towards 0."""
    age = jnp.tile(tracked.utility.age, tracked.mean.size // tracked.utility.age.size)
    return utility(Utility(tracked.mean, age), decay)


def replaced(tracked: Tracked, mask: jax.Array, width: int) -> Tracked:
    """Masked units begin at age 0."""
    mean = jnp.where(jnp.tile(mask, width), 0.0, tracked.mean)
    return tracked._replace(utility=reset_utility(tracked.utility, mask), mean=mean)


def bias_beside(kernel: Path, params: Params, layers: tuple[UnitLayer, ...]) -> Path | None:
    """The bias that is added to what a kernel computes: a layer's own, or `bias` beside an output layer's `kernel`."""
    for layer in layers:
        if layer.kernel == kernel:
            return layer.bias
    if kernel[-1] != "kernel" or "bias" not in get_at(params, kernel[:-1]):
        return None
    return (*kernel[:-1], "bias")


def _outgoing(layer: UnitLayer) -> tuple[Path, ...]:
    return tuple(outgoing.kernel for outgoing in layer.outgoing)
