"""Where a monitor copies its values to, beside its own history: TensorBoard, Weights & Biases, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from plasticity.errors import UserError


class Mirror(Protocol):
    def write(self, numbers: Mapping[str, float], step: int) -> None: ...
    def close(self) -> None: ...


class _Nothing:
    def write(self, numbers: Mapping[str, float], step: int) -> None:
        pass

    def close(self) -> None:
        pass


class _Scalars:
    """A TensorBoard writer: anything with `add_scalar(name, value, step)`. Closed only if it was opened here."""

    def __init__(self, writer: Any, own: bool) -> None:
        self.writer, self.own = writer, own

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self.own:
            self.writer.close()


class _Log:
    """A W&B run: anything with `log(mapping, step=)`. Finished only if it was begun here."""

    def __init__(self, run: Any, own: bool) -> None:
        self.run, self.own = run, own

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        self.run.log(dict(numbers), step=step)

    def close(self) -> None:
        if self.own:
            self.run.finish()


def mirror_of(given: Any) -> Mirror:
    """The mirror for `tensorboard:FOLDER`, `wandb:PROJECT`, a writer or run of the user's own, or None.

    Raises `UserError` for anything else, and where the package is missing.
    """
    if given is None:
        return _Nothing()
    if isinstance(given, str):
        kind, _, where = given.partition(":")
        if kind == "tensorboard" and where:
            return _Scalars(_imported("tensorboardX").SummaryWriter(where), own=True)
        if kind == "wandb" and where:
            return _Log(_imported("wandb").init(project=where), own=True)
    elif hasattr(given, "add_scalar"):
        return _Scalars(given, own=False)
    elif hasattr(given, "log"):
        return _Log(given, own=False)
    raise UserError(
        f"mirror must be 'tensorboard:FOLDER', 'wandb:PROJECT', or an object with add_scalar or log; got {given!r}"
    )


def _imported(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"this mirror needs {name}: pip install 'plasticity-suite[track]'") from None
