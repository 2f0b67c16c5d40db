"""`Monitor`: the diagnostics in anybody's training loop, with a cadence, a history and an explanation.

    monitor = plasticity.Monitor(every=500, jsonl="metrics.jsonl")
    for step in range(steps):
        ...                                     # your own training step
        if monitor.due(step):
            monitor.record(step, activations=activations, params=params, grads=grads, loss=loss)
    print(monitor.table())
    print(monitor.explain())

The monitor keeps state so that your loop need not: when it last measured, since when the task has been this one,
parameters at the first record (for distances), and every value. What is measured is `plasticity.diagnose`'s business.
It reads arrays of any framework that NumPy or DLPack can read; `plasticity.adapters.torch` watches PyTorch modules.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import numpy as np

from plasticity.diagnostics import diagnose, unit_of
from plasticity.errors import UserError
from plasticity.explain import explain
from plasticity.mirrors import mirror_of

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
    announced task change. choose: names of diagnostics, None for all that what is passed allows.
    activation, learning_rate, thresholds: as for `diagnose`. reference: a batch to measure on, kept for you as
    `monitor.reference`.

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
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise UserError(f"every must be a whole number of steps >= 1, got {every!r}")
        # An unknown name or threshold is told now, not after the first thousand steps.
        diagnose(choose=(), **thresholds)
        self.every, self.dense, self.reference = every, dense, reference
        self.choose = None if choose is None else tuple([choose] if isinstance(choose, str) else choose)
        for name in self.choose or ():
            unit_of(name)
        self.activation, self.learning_rate, self.thresholds = activation, learning_rate, thresholds
        self.readings: list[Reading] = []
        self.task = 0
        self._task_began = 0
        self._initial: Any = None
        self._layers: tuple[str, ...] | None = None
        self._jsonl = _opened(jsonl)
        self._mirror = mirror_of(mirror)

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
        targets: Any = None,
        **values: Any,
    ) -> dict[str, float]:
        """Measure, and keep the values; returns them as a flat mapping `name[/layer]` -> number.

        activations, params, grads, updates: as for `diagnose`. targets: regression targets `[batch, ...]`, of which
        mean and spread are kept. values: numbers of your own, such as `loss=`, `score=`, `probe_loss=`.

        Raises `UserError` if the layers are not those of the records before, or a value is no number.
        """
        layers = tuple(sorted(activations)) if activations is not None else None
        if layers is not None and self._layers is not None and layers != self._layers:
            raise UserError(
                f"activations have the layers {', '.join(layers)}; before they had {', '.join(self._layers)}"
            )
        self._layers = layers or self._layers
        if params is not None and self._initial is None:
            # A copy: loops that update in place, or donate, would change it.
            self._initial = jax.tree.map(lambda p: np.array(p), params)
        found: dict[str, Any] = {}
        if any(given is not None for given in (activations, params, grads, updates)):
            found = diagnose(
                activations=activations,
                params=params,
                initial_params=None if params is None else self._initial,
                grads=grads,
                updates=updates,
                activation=self.activation,
                learning_rate=self.learning_rate,
                choose=self.choose,
                **self.thresholds,
            )
        if targets is not None:
            y = np.asarray(targets, np.float64)
            found |= {"target_mean": y.mean(), "target_std": y.std()}
        numbers = {name: _number(name, value) for name, value in {**jax.device_get(found), **values}.items()}
        self._keep(step, numbers)
        return numbers

    def history(self) -> Any:
        """All readings as a tidy pandas frame: step, task, name, layer, value, unit."""
        try:
            import pandas as pd
        except ImportError:
            raise UserError("history() needs pandas: pip install 'plasticity-suite[analysis]'") from None
        return pd.DataFrame(self.readings, columns=list(Reading._fields))

    def table(self, last: int = 5) -> str:
        """The values of the whole network at the last few measurements, as text."""
        steps = sorted({r.step for r in self.readings})[-last:]
        values = {(r.name, r.step): r.value for r in self.readings if not r.layer}
        names = list(dict.fromkeys(name for name, _ in values))
        width = max([4, *(len(name) for name in names)])
        lines = [f"{'step':<{width}}" + "".join(f"{step:>12,}" for step in steps)]
        for name in names:
            cells = (values.get((name, step)) for step in steps)
            lines.append(f"{name:<{width}}" + "".join(f"{'':>12}" if c is None else f"{c:>12.4g}" for c in cells))
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

    def _keep(self, step: int, numbers: Mapping[str, float]) -> None:
        for key, value in numbers.items():
            name, _, layer = key.partition("/")
            self.readings.append(Reading(int(step), self.task, name, layer, value, _unit(name)))
        if self._jsonl is not None:
            # NaN is no JSON: null says that there was a measurement and no number.
            line = {k: v if math.isfinite(v) else None for k, v in numbers.items()}
            self._jsonl.write(json.dumps({"step": int(step), "task": self.task, **line}) + "\n")
            self._jsonl.flush()
        self._mirror.write(numbers, int(step))


def _unit(name: str) -> str:
    with contextlib.suppress(UserError):
        return UNITS.get(name) or unit_of(name)
    return ""


def _number(name: str, value: Any) -> float:
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if array.size != 1 or (not np.issubdtype(array.dtype, np.number) and array.dtype != bool):
        raise UserError(f"{name}= must be one number, got {type(value).__name__} of shape {array.shape}")
    return float(array.reshape(()))


def _opened(path: str | Path | None) -> Any:
    if path is None:
        return None
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "a")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
