"""Images in array_record files, which tensorflow_datasets writes with `file_format="array_record"`.

The library array_record (of the `data` extra) reads them and verifies their checksums; see `tf_example` for what is in
a record.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from plasticity.errors import UserError
from tasks.data import memory, tf_example
from tasks.data.optional import need


def read_pair(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `[n, height, width(, 3)]` and labels `[n]`. Raises `UserError` if the file holds anything else."""
    module = need("array_record.python.array_record_module", f"reading {path}")
    memory.require(path.stat().st_size, str(path))
    try:
        reader = module.ArrayRecordReader(str(path))
        records = reader.read_all() if reader.num_records() else []
        complete = reader.ok()
        reader.close()
    except RuntimeError as error:
        raise UserError(f"{path} is damaged, or no array_record file: {error}") from None
    if not complete:
        raise UserError(f"{path} is damaged, or no array_record file")
    return tf_example.read_pair(records, path)
