"""From a name or a path to `tasks.data.sets.Images`: find the file, read it, check it, cut it, pool it.

`load(name_or_path, examples_used, pool, held_out)` takes the name of an embedded data set or the path of a file that
the user
has: idx or idx.gz (see `idx`), or npz (see `npz`), told apart by their content. Nothing is ever downloaded
and no pickle is ever read. The examples are the first `examples_used` in the file's order; the number of
classes is that of the whole file. Pooling averages blocks of pool x pool pixels and rounds half to even.
"""

from __future__ import annotations

import difflib
from functools import lru_cache
from pathlib import Path

import numpy as np

from plasticity.errors import UserError
from tasks.data import idx, npz
from tasks.data.sets import Images

#: The embedded data sets: name -> the file of images. Fashion-MNIST: Xiao, Rasul and Vollgraf 2017,
#: arXiv:1708.07747, MIT licence; its test split of 10,000 images, 28 x 28, 10 classes of 1,000.
EMBEDDED = {"fashion_mnist": Path(__file__).parent / "fashion_mnist" / "t10k-images-idx3-ubyte.gz"}

CHANNELS = (1, 3)


def load(name_or_path: str, examples_used: int, pool: int = 1, held_out: int = 0) -> Images:
    """The first `examples_used` examples of a data set and `held_out` after them, averaged over pool x pool blocks.

    Read once per process for each file and each pair of sizes, and again if the file changes. Raises
    `UserError` if there is no such data, or it cannot be used as asked.
    """
    path = find(name_or_path)
    return _load(path.resolve(), path.stat().st_mtime_ns, examples_used, pool, held_out)


def find(name_or_path: str) -> Path:
    """The file behind a name or a path. Raises `UserError` with the nearest match if there is none."""
    if name_or_path in EMBEDDED:
        return EMBEDDED[name_or_path]
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        usable = [
            file.name for file in sorted(path.iterdir()) if _reader(file) is not None and "labels" not in file.name
        ]
        raise UserError(f"{path} is a folder; name a file in it: {', '.join(usable) or '(it has no idx or npz file)'}")
    beside = [str(path.parent / file.name) for file in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(name_or_path, [*EMBEDDED, *beside], n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UserError(
        f"no data set or file {name_or_path!r}.{hint} "
        f"Allowed: {', '.join(EMBEDDED)}, or the path of an idx, idx.gz or npz file"
    )


@lru_cache(maxsize=8)
def _load(path: Path, modified: int, examples_used: int, pool: int, held_out: int) -> Images:
    read_pair = _reader(path)
    if read_pair is None:
        with path.open("rb") as file:
            begins = file.read(4).hex(" ")
        raise UserError(
            f"{path} is neither idx (begins with 00 00), gzip (1f 8b) nor npz (50 4b): "
            f"it begins with {begins or 'nothing'}"
        )
    images, labels = _checked(path, *read_pair(path))
    asked = examples_used + held_out
    if len(images) < asked:
        more = f" and held_out for {held_out} more" if held_out else ""
        raise UserError(f"{path} has {len(images)} examples, examples_used asks for {examples_used}{more}")
    classes = int(labels.max()) + 1
    return Images.of(pooled(images[:asked], pool), labels[:asked], classes, held_out)


def _reader(path: Path):
    """`read_pair` of the format that a file is in by its first bytes; None for any other."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        begins = file.read(2)
    readers = {idx.MAGIC: idx.read_pair, idx.GZIP_MAGIC: idx.read_pair, npz.MAGIC: npz.read_pair}
    return readers.get(begins)


def _checked(path: Path, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `[n, height, width, channels]` and labels `[n]`. `UserError` if they are anything else."""
    if images.dtype != np.uint8:
        raise UserError(f"{path}: images must be uint8 (grey levels 0 to 255), found {images.dtype}")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in CHANNELS:
        raise UserError(
            f"{path}: images must be [n, height, width] or [n, height, width, 1 or 3 channels], "
            f"found shape {images.shape}"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise UserError(f"{path}: labels must be whole numbers [n], found {labels.dtype} of shape {labels.shape}")
    if len(images) != len(labels):
        raise UserError(f"{path}: {len(images)} images but {len(labels)} labels")
    if images.size == 0:
        raise UserError(f"{path} has no images: shape {images.shape}")
    if labels.min() < 0 or labels.max() >= len(labels):
        # An upper limit, because the highest label sets the size of the network's output.
        raise UserError(
            f"{path}: labels must be class numbers, from 0 and below the number of examples ({len(labels)}), "
            f"found {labels.min()} to {labels.max()}"
        )
    return images, labels


def pooled(images: np.ndarray, pool: int) -> np.ndarray:
    """uint8 `[n, height, width, channels]` averaged over pool x pool blocks and rounded back to uint8."""
    n, height, width, channels = images.shape
    if height % pool or width % pool:
        divisors = [d for d in range(1, min(height, width) + 1) if height % d == 0 and width % d == 0]
        raise UserError(
            f"pool must divide the image size {height} x {width}, got {pool}; "
            f"allowed: {', '.join(str(d) for d in divisors)}"
        )
    if pool == 1:
        return images
    blocks = images.reshape(n, height // pool, pool, width // pool, pool, channels)
    return np.rint(blocks.mean((2, 4))).astype(np.uint8)
