"""Libraries that only some formats need: imported when such a file is read, and named if they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from plasticity.errors import UserError

#: What to install for each, as the index calls it.
DISTRIBUTIONS = {"pyarrow": "pyarrow", "PIL": "Pillow", "pooch": "pooch", "array_record": "array-record"}


def need(module: str, purpose: str) -> Any:
    """The module. `UserError` that names the extra if it is not installed; `purpose` begins the message."""
    try:
        return importlib.import_module(module)
    except ImportError:
        library = DISTRIBUTIONS[module.partition(".")[0]]
        raise UserError(
            f"{purpose} needs {library}, which is not installed; "
            "install the data extra: pip install 'plasticity-suite[data]'"
        ) from None
