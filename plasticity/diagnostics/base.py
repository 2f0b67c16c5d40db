"""The registry of diagnostics and `diagnose`, which runs a chosen set on what the caller has.

A diagnostic is a function `(Observation, *, thresholds) -> Reading` under the decorator `diagnostic`. All
modules of this folder are imported the first time somebody asks, so a new diagnostic is one new file and no
list is edited; other distributions join through the entry-point group `plasticity.diagnostics`.

Everything is pure and has static shapes: no value is read on the host, so `diagnose` works inside `jit`, under `vmap`
over runs, and in a notebook on NumPy arrays. Half-precision and integer input is computed in float32.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from plasticity.activations import NONLINEARITIES
from plasticity.diagnostics.arrays import Scalar, as_rows, check_scalar, check_tree
from plasticity.diagnostics.arrays import magnitude as magnitude
from plasticity.diagnostics.arrays import safe_ratio as safe_ratio
from plasticity.errors import UserError, unknown
from plasticity.network import Params

#: The name of a nonlinearity of the suite, or any elementwise differentiable function.
Phi = str | Callable[[jax.Array], jax.Array]

#: What a diagnostic may need: arguments of `diagnose`, and what follows from them.
NEEDS = {
    "activations": "activations=",
    "preactivations": "activations= with (pre, post) for every layer",
    "reference_activations": "reference_activations=",
    # All singular values of activations; their squares suffice; small ones must be exact. See `rank`.
    "singular_values": "activations=",
    "squared_singular_values": "activations=",
    "exact_singular_values": "activations=",
    "params": "params=",
    "initial_params": "initial_params=",
    "grads": "grads=",
    "grads_2": "grads_2=",
    "updates": "updates=",
    "previous_updates": "previous_updates=",
    "opt_state": "opt_state=",
    "learning_rate": "learning_rate=",
}

#: How `diagnose` may get singular values; see `plasticity.diagnostics.rank`.
SPECTRA = ("exact", "gram")


class Unmet(UserError):
    """A diagnostic cannot be computed from what was given. `diagnose(choose=None)` leaves such diagnostics out."""


class Reading(NamedTuple):
    """The value for the whole network, if there is one, and one value a layer."""

    whole: Scalar | None
    layers: dict[str, Scalar]


def width_of(activation: Phi) -> int:
    """Number of features a unit owns in `post`: 2 for CReLU, otherwise 1. Raises `UserError` on an unknown name."""
    if not isinstance(activation, str):
        return 1
    if activation not in NONLINEARITIES:
        raise unknown("activation", activation, NONLINEARITIES)
    return NONLINEARITIES[activation].width


@dataclass(frozen=True)
class Layer:
    """One hidden layer's values as rows. `pre` is None where only outputs were given."""

    name: str
    pre: Float[Array, "rows units"] | None
    post: Float[Array, "rows features"]
    units: int
    _memo: dict[Callable, Array] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, name: str, value: Any, activation: Phi, argument: str = "activations") -> Layer:
        """From an `Activation`, a pair (pre, post), or an array, which is taken as post."""
        where = f"{argument}[{name!r}]"
        pre, post = value if isinstance(value, tuple) and len(value) == 2 else (None, value)
        post = as_rows(post, where)
        pre = None if pre is None else as_rows(pre, where)
        width = width_of(activation)
        units = post.shape[-1] // width if pre is None else pre.shape[-1]
        if post.shape[-1] != units * width or (pre is not None and pre.shape[0] != post.shape[0]):
            shapes = f"pre {None if pre is None else pre.shape}, post {post.shape}"
            raise UserError(f"{where} does not fit activation {activation!r}: {shapes}, as [rows, features]")
        return cls(name, pre, post, units)

    @cached_property
    def finite(self) -> Bool[Array, ""]:
        """Whether every value of the layer is finite; if not, all its readings are NaN."""
        ok = jnp.isfinite(self.post).all()
        return ok if self.pre is None else ok & jnp.isfinite(self.pre).all()

    def once(self, measure: Callable[[Array], Array]) -> Array:
        """`measure(post)`, computed once however many diagnostics ask: singular values are shared by the ranks."""
        if measure not in self._memo:
            self._memo[measure] = measure(self.post)
        return self._memo[measure]

    def guard(self, value: Array) -> Array:
        """`value` as float, or NaN if the layer holds NaN or infinity: a diverged run must not look healthy."""
        return jnp.where(self.finite, value, jnp.nan)


@dataclass(frozen=True)
class Observation:
    """What `diagnose` was given.

    shared_spectrum: somebody needs all singular values, so others should use them. reference: layers of
    `reference_activations`, which have the names and the widths of `layers`.
    """

    layers: Mapping[str, Layer]
    activation: Phi = "relu"
    params: Params = None
    initial_params: Params = None
    grads: Params = None
    updates: Params = None
    learning_rate: Any = None
    shared_spectrum: bool = False
    reference: Mapping[str, Layer] = field(default_factory=dict)
    grads_2: Params = None
    previous_updates: Params = None
    opt_state: Any = None
    _memo: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    def once(self, measure: Callable[[Observation], Any]) -> Any:
        """`measure(self)`, computed once however many diagnostics ask."""
        if measure not in self._memo:
            self._memo[measure] = measure(self)
        return self._memo[measure]


@dataclass(frozen=True)
class Diagnostic:
    """name: key in records. unit: of the value. range: lowest and highest value. needs: names in `NEEDS`.

    cost: in words, against one forward pass. reference: author, year, identifier. compute: the function itself;
    its keyword-only arguments are the thresholds, with the literature's defaults.
    """

    name: str
    unit: str
    range: tuple[float, float]
    needs: tuple[str, ...]
    cost: str
    reference: str
    compute: Callable[..., Reading]

    @property
    def thresholds(self) -> dict[str, float]:
        """Thresholds by name with their defaults."""
        parameters = inspect.signature(self.compute).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return inspect.cleandoc(self.compute.__doc__ or "").splitlines()[0]


def _where(compute: Callable[..., Any]) -> tuple[str, str]:
    return compute.__module__, compute.__qualname__


_members: dict[str, Diagnostic] = {}
_discovered = False


def diagnostic(
    *, name: str, unit: str, range: tuple[float, float], needs: tuple[str, ...], cost: str, reference: str
) -> Callable[[Callable[..., Reading]], Callable[..., Reading]]:
    """Decorator: register `compute(observation, *, thresholds) -> Reading` under `name`.

    Raises TypeError on a second diagnostic of that name, a need that is not in `NEEDS`, a missing docstring, or a
    threshold that another diagnostic has with another default.
    """

    def decorate(compute: Callable[..., Reading]) -> Callable[..., Reading]:
        new = Diagnostic(name, unit, range, needs, cost, reference, compute)
        if not (compute.__doc__ or "").strip():
            raise TypeError(f"diagnostic {name!r} needs a docstring: it is what `describe` prints")
        if "/" in name:
            raise TypeError(f"diagnostic {name!r}: no '/' in a name, it separates the layer")
        if extra := sorted(set(needs) - set(NEEDS)):
            raise TypeError(f"diagnostic {name!r} needs {extra}, which is not among {sorted(NEEDS)}")
        for other in _members.values():
            same = _where(other.compute) == _where(compute)
            if other.name == name and not same:
                raise TypeError(f"diagnostic {name!r} is registered twice: {other.compute} and {compute}")
            for key, default in new.thresholds.items():
                if other.name != name and other.thresholds.get(key, default) != default:
                    raise TypeError(f"threshold {key!r} has different defaults in {other.name!r} and {name!r}")
        _members[name] = new
        return compute

    return decorate


def diagnostics() -> dict[str, Diagnostic]:
    """All diagnostics by name, in alphabetical order."""
    global _discovered
    if not _discovered:
        package = importlib.import_module(__package__ or "plasticity.diagnostics")
        for info in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{info.name}")
        for point in entry_points(group="plasticity.diagnostics"):
            point.load()
        _discovered = True
    return dict(sorted(_members.items()))


def get(name: str) -> Diagnostic:
    """The diagnostic called `name`; a `UserError` with the nearest match if there is none."""
    members = diagnostics()
    if name not in members:
        from plasticity.diagnostics.standalone import recorders, standalones

        others = {**recorders(), **standalones()}
        if name in others:
            raise UserError(f"diagnostic {name!r} is called on its own, as {others[name].address}, not by diagnose")
        raise unknown("diagnostic", name, {*members, *others})
    return members[name]


def unit_of(key: str) -> str:
    """The unit of a recorded number: a key of `diagnose`'s result, `name` or `name/layer`, or of a standalone's."""
    name = key.partition("/")[0]
    if name not in diagnostics():
        from plasticity.diagnostics.standalone import get as other

        member = other(name)
        return member.records.get(name, member.unit)
    return get(name).unit


def thresholds_of(key: str, **thresholds: Any) -> dict[str, Any]:
    """The thresholds behind a key of `diagnose(..., **thresholds)`, to be recorded beside its value."""
    return {name: thresholds.get(name, default) for name, default in get(key.partition("/")[0]).thresholds.items()}


def per_layer(layers: Mapping[str, Layer], measure: Callable[[Layer], Array]) -> dict[str, Array]:
    """`measure` of every layer, NaN where the layer holds NaN or infinity."""
    return {name: layer.guard(measure(layer)) for name, layer in layers.items()}


def over_layers(layers: Mapping[str, Layer], measure: Callable[[Layer], Array]) -> Reading:
    """`measure` by layer, NaN where a layer holds NaN or infinity; the network's value is the mean over layers.

    The mean, because no order among a mapping's keys names a last layer. NaN if there are no layers.
    """
    values = per_layer(layers, measure)
    return Reading(jnp.mean(jnp.stack(list(values.values()))) if values else jnp.array(jnp.nan), values)


def over_units(layers: Mapping[str, Layer], measure: Callable[[Layer], Array]) -> Reading:
    """Mean over units of a per-unit value `[units]`, by layer and over all units of the network.

    The network's value weighs each unit equally (sum over units / number of units), not each layer. It is NaN if a
    layer holds NaN or infinity, and if there are no layers.
    """
    sums = per_layer(layers, lambda layer: jnp.sum(measure(layer).astype(layer.post.dtype)))
    units = sum(layer.units for layer in layers.values())
    whole = sum(sums.values(), start=jnp.zeros(())) / units if units else jnp.array(jnp.nan)
    return Reading(whole, {name: total / layers[name].units for name, total in sums.items()})


def _layers_of(activations: Any, activation: Phi, argument: str) -> dict[str, Layer]:
    if activations is None:
        return {}
    if not isinstance(activations, Mapping):
        raise UserError(f"{argument} must map layer names to arrays, got {type(activations).__name__}")
    return {name: Layer.of(name, value, activation, argument) for name, value in activations.items()}


def _check_same(layers: Mapping[str, Layer], reference: Mapping[str, Layer]) -> None:
    if layers.keys() != reference.keys():
        names = [", ".join(sorted(map(str, mapping))) or "(none)" for mapping in (layers, reference)]
        raise UserError(f"activations have the layers {names[0]}, but reference_activations {names[1]}")
    for name, layer in layers.items():
        units = layer.units, reference[name].units
        if units[0] != units[1]:
            raise UserError(f"layer {name!r} has {units[0]} units in activations, {units[1]} in reference_activations")


def diagnose(
    *,
    activations: Mapping[str, Any] | None = None,
    params: Params = None,
    initial_params: Params = None,
    grads: Params = None,
    updates: Params = None,
    reference_activations: Mapping[str, Any] | None = None,
    grads_2: Params = None,
    previous_updates: Params = None,
    opt_state: Any = None,
    activation: Phi = "relu",
    learning_rate: Any = None,
    spectrum: str = "exact",
    choose: Iterable[str] | None = None,
    **thresholds: Any,
) -> dict[str, Array]:
    """Run diagnostics and return their values as a flat mapping of scalar arrays.

    activations: layer name -> `Activation`, a pair (pre, post), or an array (taken as post), each value shaped
        `[batch, (positions ...,) units]`. Only what is passed is counted: leave out the output layer.
    params, initial_params, grads, updates: trees of one structure, grouped into layers by their top-level key.
    reference_activations: as activations, of the same layers at another time (at the start, before a task change), for
        shifts and overlaps. The number of rows may differ.
    grads_2: the gradient on a batch disjoint from that of grads and as large, for signal and noise of gradients.
    previous_updates: the update before `updates`. opt_state: the state of an optax optimiser.
    activation: the nonlinearity's name, or an elementwise function, which is treated as smooth.
    learning_rate: scalar, for the effective learning rates.
    spectrum: "exact", or "gram" to take the ranks for which eigenvalues of the Gram matrix are usable from there, which
        is faster; `plasticity.diagnostics.rank.paths` says which.
    choose: names of diagnostics. None means all that can be computed from what is given.
    thresholds: any diagnostic's thresholds by name, e.g. `tau=0.1`; `thresholds_of` lists them.

    Keys are `name` for the whole network and `name/layer` for a layer. Values are NaN where a layer holds NaN or
    infinity. Raises `UserError` on an unknown name or threshold, on what is not real numbers, and if a chosen
    diagnostic lacks its input.
    """
    members = diagnostics()
    known = {key for member in members.values() for key in member.thresholds}
    for key, value in thresholds.items():
        if key not in known:
            raise unknown("threshold", key, known)
        check_scalar(value, f"threshold {key}=")
    if learning_rate is not None:
        check_scalar(learning_rate, "learning_rate=")
    chosen = (
        list(members.values())
        if choose is None
        else [get(n) for n in ([choose] if isinstance(choose, str) else choose)]
    )

    if spectrum not in SPECTRA:
        raise unknown("spectrum", spectrum, SPECTRA)
    layers = _layers_of(activations, activation, "activations")
    reference = _layers_of(reference_activations, activation, "reference_activations")
    if activations is not None and reference_activations is not None:
        _check_same(layers, reference)
    trees = {"params": params, "initial_params": initial_params, "grads": grads, "updates": updates}
    trees |= {"grads_2": grads_2, "previous_updates": previous_updates}
    for name, tree in trees.items():
        check_tree(tree, name)
    # An optimiser's state may hold whatever it likes; its moments are looked for when they are asked for.
    trees["opt_state"] = opt_state
    given = {name for name, value in {**trees, "learning_rate": learning_rate}.items() if value is not None}
    if activations is not None:
        given |= {"activations", "singular_values", "squared_singular_values", "exact_singular_values"}
        if all(layer.pre is not None for layer in layers.values()):
            given.add("preactivations")
    if reference_activations is not None:
        given.add("reference_activations")
    missing = {member.name: [need for need in member.needs if need not in given] for member in chosen}
    ready = [member for member in chosen if not missing[member.name]]
    if choose is not None and len(ready) < len(chosen):
        name, needs = next((name, needs) for name, needs in missing.items() if needs)
        raise Unmet(f"diagnostic {name!r} needs {', '.join(NEEDS[need] for need in needs)}")

    decisive = "singular_values" if spectrum == "exact" else "exact_singular_values"
    shared = any(decisive in member.needs for member in ready)
    seen = Observation(
        layers, activation, **trees, learning_rate=learning_rate, shared_spectrum=shared, reference=reference
    )
    result: dict[str, Array] = {}
    for member in ready:
        own = {key: value for key, value in thresholds.items() if key in member.thresholds}
        try:
            reading = member.compute(seen, **own)
        except Unmet:
            if choose is None:
                continue
            raise
        if reading.whole is not None:
            result[member.name] = reading.whole
        result |= {f"{member.name}/{layer}": value for layer, value in reading.layers.items()}
    return result
