"""Checkpoints: the state of a group between two chunks, as one npz file written atomically.

The file holds the leaves of the state in tree order, and a JSON text with the position and what the host knows. It is
read into the shape of a freshly started state and nothing else: another number of leaves, shape or dtype is an error,
so a checkpoint of another program can never be resumed. (Orbax is the choice for states that are spread over hosts; a
group lives on one, and a single renamed file is atomic without its help and loads in milliseconds.)
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from plasticity.errors import UserError
from plasticity.record import atomic


def save(folder: Path, number: int, state: Any, host: dict[str, Any]) -> None:
    """Write checkpoint `number` and drop the older ones. Typed PRNG keys are stored as their data."""
    leaves: dict[str, Any] = {f"leaf_{i}": _to_numpy(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    path = folder / f"{number:05d}.npz"
    with atomic(path) as aside, open(aside, "wb") as file:
        np.savez(file, host=np.array(json.dumps(host)), **leaves)
    for old in folder.glob("*.npz"):
        if old != path:
            old.unlink()


def latest(folder: Path) -> Path | None:
    """The newest checkpoint, or None."""
    return max(folder.glob("*.npz"), default=None)


def load(path: Path, template: Any) -> tuple[Any, dict[str, Any]]:
    """The state in the structure of `template`, and the host's part. Raises `UserError` if they do not fit."""
    with _opened(path) as file:
        host = json.loads(str(file["host"]))
        stored = [file[f"leaf_{i}"] for i in range(len(file.files) - 1)]
    leaves, structure = jax.tree.flatten(template)
    wanted = [_to_numpy(leaf) for leaf in leaves]
    if [(a.shape, a.dtype) for a in stored] != [(a.shape, a.dtype) for a in wanted]:
        raise UserError(f"checkpoint {path} is of another program; delete it to start its group again")
    return jax.tree.unflatten(structure, [_like(a, leaf) for a, leaf in zip(stored, leaves, strict=True)]), host


def host_part(path: Path) -> dict[str, Any]:
    """What the host knew, without reading the state. Raises `UserError` if the file cannot be read."""
    with _opened(path) as file:
        return json.loads(str(file["host"]))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            yield file
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read checkpoint {path}: {error}; delete it to start its group again") from None


def _to_numpy(leaf: Any) -> np.ndarray:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def _like(array: np.ndarray, leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        return array
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jax.numpy.asarray(array), impl=jax.random.key_impl(leaf))
    # Committed to its devices only if the template is: else every program would be compiled for that once more.
    return jax.device_put(array, leaf.sharding if leaf.committed else None)
