"""`Monitor`: the diagnostics in anybody's training loop, with a cadence, a history and an explanation.

    monitor = plasticity.Monitor(every=500, jsonl="metrics.jsonl")
    for step in range(steps):
        ...                                     # your own training step
        if monitor.due(step):
            monitor.record(step, activations=activations, params=params, grads=grads, loss=loss)
    print(monitor.table())
    print(monitor.explain())

The monitor keeps state so that your loop need not: since when the task has been this one, parameters at the first
record (for distances), and every value. What is measured is `plasticity.diagnose`'s business; it is compiled as one
program the first time, which takes some seconds, and again if shapes change: measure batches of one size.
It reads arrays of any framework that NumPy or DLPack can read; `plasticity.adapters.torch` watches PyTorch modules.
"""

from __future__ import annotations

import contextlib
import json
import math
import operator
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.diagnostics import diagnose, unit_of
from plasticity.diagnostics import get as diagnostic
from plasticity.diagnostics.base import Unmet
from plasticity.diagnostics.rank import paths, warn_if_capped
from plasticity.diagnostics.sets import CHEAP, RANKS
from plasticity.errors import UserError
from plasticity.explain import explain
from plasticity.mirrors import mirror_of

#: What is measured unless `choose` says otherwise: what `explain` reads, and norms of what moves the parameters.
DEFAULT = CHEAP + RANKS
#: Units of values that are recorded beside diagnostics.
UNITS = {"loss": "loss", "score": "score", "probe_loss": "share of variance", "probe_loss_fresh": "share of variance"}


class Reading(NamedTuple):
    """One recorded number. layer is empty for a value of the whole network; task counts announced changes from 0."""

    step: int
    task: int
    name: str
    layer: str
    value: float
    unit: str


class Monitor:
    """Measure a network as it trains.

    every: steps between measurements. dense: also measure 1, 2, 4, 8, ... steps after the start and after each
    announced task change. choose: names of diagnostics; None for `DEFAULT`, "all" for every one, as far as
    what is passed allows.
    activation, learning_rate, thresholds: as for `diagnose`; a schedule's learning rate goes to `record`. reference: a
    batch to measure on, kept for you as `monitor.reference`.

    jsonl: a file that gets one line a measurement, at once; it is appended to. mirror: a TensorBoard or W&B run to
    copy values to: a folder for `tensorboard:FOLDER`, `wandb:PROJECT`, or an object with `add_scalar(name, value,
    step)` or `log(mapping, step=)`.

    Raises `UserError` for impossible settings before anything is computed.
    """

    def __init__(
        self,
        every: int = 1000,
        *,
        dense: bool = True,
        choose: Iterable[str] | None = None,
        activation: Any = "relu",
        learning_rate: Any = None,
        reference: Any = None,
        jsonl: str | Path | None = None,
        mirror: Any = None,
        **thresholds: Any,
    ) -> None:
        if isinstance(every, bool) or not hasattr(every, "__index__") or operator.index(every) < 1:
            raise UserError(f"every must be a whole number of steps >= 1, got {every!r}")
        # An unknown name or threshold is told now, not after the first thousand steps.
        diagnose(choose=(), **thresholds)
        self.every, self.dense, self.reference = operator.index(every), dense, reference
        self.choose = None if choose == "all" else _names(choose)
        self._everything = choose == "all"
        self.activation, self.learning_rate, self.thresholds = activation, learning_rate, thresholds
        self.readings: list[Reading] = []
        self.task = 0
        self._task_began = 0
        self._initial: Any = None
        self._layers: tuple[str, ...] | None = None
        self._measure = jax.jit(self._diagnose)
        self._mirror = mirror_of(mirror)
        self._jsonl = _opened(jsonl)

    def due(self, step: int) -> bool:
        """Whether to measure at this step (counted from 0): at multiples of `every`, and densely after a change."""
        since = step - self._task_began
        return step % self.every == 0 or (self.dense and since >= 0 and since & (since - 1) == 0)

    def task_changed(self, step: int) -> None:
        """Announce that the data or the targets change with this step: measurements become dense after it."""
        self.task += 1
        self._task_began = step

    def record(
        self,
        step: int,
        *,
        activations: Mapping[str, Any] | None = None,
        params: Any = None,
        grads: Any = None,
        updates: Any = None,
        reference_activations: Mapping[str, Any] | None = None,
        grads_2: Any = None,
        previous_updates: Any = None,
        opt_state: Any = None,
        learning_rate: Any = None,
        targets: Any = None,
        **values: Any,
    ) -> dict[str, float]:
        """Measure, and keep the values; returns them as a flat mapping `name[/layer]` -> number.

        activations, params, grads, updates, and reference_activations, grads_2, previous_updates, opt_state, which the
        default set does not read: as for `diagnose`; leaves of trees that are no numbers (functions of an Equinox
        module) are left out. learning_rate: of this step, instead of the constructor's. targets: regression targets
        `[batch, ...]`, of which mean and spread are kept. values: numbers of your own, such as `loss=`, `score=`,
        `probe_loss=`; they come first in `table`. If ranks are measured on fewer rows than a layer is wide, a
        `UserWarning` says so, once.

        Raises `UserError` if the layers are not those of the records before, or a value is no number. Then nothing of
        this record is kept.
        """
        layers = tuple(sorted(activations)) if activations is not None else None
        if layers is not None and self._layers is not None and layers != self._layers:
            raise UserError(
                f"activations have the layers {', '.join(layers)}; before they had {', '.join(self._layers)}"
            )
        numbers = {name: _number(name, value) for name, value in values.items()}
        given: dict[str, Any] = {"params": params, "grads": grads, "updates": updates, "grads_2": grads_2}
        given |= {"previous_updates": previous_updates, "opt_state": opt_state}
        given = {name: _arrays(tree) for name, tree in given.items() if tree is not None}
        for name, layers_of in {"activations": activations, "reference_activations": reference_activations}.items():
            if layers_of is not None:
                given[name] = {layer: jax.tree.map(_array, value) for layer, value in layers_of.items()}
        initial = self._initial
        if "params" in given:
            if initial is None:
                # A copy: loops that update in place, or donate, would change it.
                initial = jax.tree.map(lambda p: jnp.array(p, copy=True), given["params"])
            given["initial_params"] = initial
        found: dict[str, Any] = {}
        if given:
            rate = self.learning_rate if learning_rate is None else learning_rate
            found = self._measure(given if rate is None else {**given, "learning_rate": _array(rate)})
            if activations is not None and paths().keys() & found.keys():
                warn_if_capped(given["activations"], stacklevel=3)
        if targets is not None:
            y = np.asarray(_host(targets), np.float64)
            if y.size == 0:
                raise UserError("targets= are empty")
            found = {**found, "target_mean": y.mean(), "target_std": y.std()}
        numbers |= {name: float(value) for name, value in jax.device_get(found).items() if name not in numbers}
        self._layers, self._initial = layers or self._layers, initial
        self._keep(step, numbers)
        return numbers

    def history(self) -> Any:
        """All readings as a tidy pandas frame: step, task, name, layer, value, unit."""
        try:
            import pandas as pd
        except ImportError:
            raise UserError("history() needs pandas: pip install 'plasticity-suite[analysis]'") from None
        return pd.DataFrame(self.readings, columns=list(Reading._fields))

    def table(self, columns: int = 6) -> str:
        """The values of the whole network as text: at the first and the last measurement and some evenly between."""
        steps = sorted({r.step for r in self.readings})
        if not steps:
            return "Nothing was recorded yet."
        wanted = np.linspace(steps[0], steps[-1], max(columns, 2))
        shown = sorted({min(steps, key=lambda step, w=w: abs(step - w)) for w in wanted})
        values = {(r.name, r.step): r.value for r in self.readings if not r.layer}
        units = {r.name: r.unit for r in self.readings if not r.layer}
        width = max([4, *(len(name) for name in units)])
        lines = [f"{'step':<{width}}" + "".join(f"{step:>12,}" for step in shown)]
        for name, unit in units.items():
            cells = (values.get((name, step)) for step in shown)
            text = "".join(f"{'':>12}" if c is None else f"{c:>12.4g}" for c in cells)
            lines.append(f"{name:<{width}}{text}  {unit}".rstrip())
        return "\n".join(lines)

    def explain(self) -> str:
        """Which mechanism of plasticity loss the numbers point to, with the evidence, and what addresses it."""
        return explain(self.readings)

    def close(self) -> None:
        """Close the file and the mirror."""
        if self._jsonl is not None:
            self._jsonl.close()
        self._mirror.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _diagnose(self, given: dict[str, Any]) -> dict[str, jax.Array]:
        def some(choose: tuple[str, ...] | None) -> dict[str, jax.Array]:
            return diagnose(**given, activation=self.activation, choose=choose, **self.thresholds)

        if self._everything or self.choose is not None:
            return some(self.choose)
        possible = []
        for name in DEFAULT:
            with contextlib.suppress(Unmet):
                jax.eval_shape(lambda name=name: some((name,)))
                possible.append(name)
        return some(tuple(possible))

    def _keep(self, step: int, numbers: Mapping[str, float]) -> None:
        for key, value in numbers.items():
            name, _, layer = key.partition("/")
            self.readings.append(Reading(int(step), self.task, name, layer, value, _unit(name)))
        if self._jsonl is not None:
            if self._jsonl.closed:
                raise UserError(f"the monitor is closed: {self._jsonl.name} gets no more lines")
            # NaN is no JSON: null says that there was a measurement and no number.
            line = {k: v if math.isfinite(v) else None for k, v in numbers.items()}
            self._jsonl.write(json.dumps({"step": int(step), "task": self.task, **line}) + "\n")
            self._jsonl.flush()
        self._mirror.write(numbers, int(step))


def _names(choose: Iterable[str] | None) -> tuple[str, ...] | None:
    if choose is None:
        return None
    names = tuple([choose] if isinstance(choose, str) else choose)
    for name in names:
        diagnostic(name)
    return names


def _unit(name: str) -> str:
    """The unit of a value or diagnostic, of either kind; empty for a name that nobody has stated one for."""
    if name in UNITS:
        return UNITS[name]
    with contextlib.suppress(UserError):
        return unit_of(name)
    return ""


def _number(name: str, value: Any) -> float:
    array = np.asarray(_host(value))
    if array.size != 1 or not (jnp.issubdtype(array.dtype, np.number) or array.dtype == bool) or np.iscomplexobj(array):
        raise UserError(f"{name}= must be one number, got {type(value).__name__} of shape {array.shape}")
    return float(array.reshape(()))


def _host(value: Any) -> Any:
    """A PyTorch tensor as a NumPy array (which knows no bfloat16); anything else as it is."""
    return value.detach().cpu().double().numpy() if hasattr(value, "detach") else value


def _array(value: Any) -> Any:
    return (
        value
        if isinstance(value, jax.Array)
        else np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    )


def _arrays(tree: Any) -> Any:
    """A tree with its leaves as arrays and without those that hold no numbers."""

    def numeric(leaf: Any) -> Any:
        array = _array(leaf)
        return array if jnp.issubdtype(array.dtype, np.number) or array.dtype == bool else None

    return jax.tree.map(numeric, tree)


def _opened(path: str | Path | None) -> Any:
    if path is None:
        return None
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
