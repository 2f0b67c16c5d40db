"""What a run hashes to: its resolved config, every default written out, so that a changed default is a new id."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from plasticity.config import Config


def resolved(item: Config) -> dict[str, Any]:
    """A config's name and all its fields, defaults included, as plain data."""
    fields = {f.name: getattr(item, f.name) for f in dataclasses.fields(item)}  # pyrefly: ignore
    # -0.0 equals 0.0 and has the same spec text, so it must have the same id.
    fields = {name: value + 0.0 if isinstance(value, float) else value for name, value in fields.items()}
    return {"name": item.name, **fields}  # pyrefly: ignore


def digest(value: Any) -> str:
    """12 hex digits of the SHA-256 of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
