"""From a name or a path to `tasks.data.sets.Images`: find the files, read them, check them, cut them, pool them.

`load(name_or_path, examples_used, pool, held_out)` takes the name of the embedded data set, the name of one that
another library has left on this machine (see `places`), or the path of a file or folder (see `formats`, `layouts`).
Nothing is ever downloaded here, and nothing that a file says is run. Training examples come before test examples, in
the order of the files. The examples are the first `examples_used`; the number of classes is that of all. Pooling
averages blocks of pool x pool pixels and rounds half to even.
"""

from __future__ import annotations

import difflib
from functools import lru_cache
from pathlib import Path

import numpy as np

from plasticity.errors import UserError
from tasks.data import formats, layouts, memory, places
from tasks.data.sets import Images

#: The embedded data sets: name -> the file of images. Fashion-MNIST: Xiao, Rasul and Vollgraf 2017,
#: arXiv:1708.07747, MIT licence; its test split of 10,000 images, 28 x 28, 10 classes of 1,000. The name means these
#: images on every machine, whatever else is found there; `fashion_mnist_full` means all 70,000.
EMBEDDED = {"fashion_mnist": Path(__file__).parent / "fashion_mnist" / "t10k-images-idx3-ubyte.gz"}
LARGER = {"fashion_mnist": "fashion_mnist_full"}

CHANNELS = (1, 3)
#: Images that are pooled at once: their blocks are numbers of 8 bytes.
BLOCK = 1024


def load(name_or_path: str, examples_used: int, pool: int = 1, held_out: int = 0) -> Images:
    """The first `examples_used` examples of a data set and `held_out` after them, averaged over pool x pool blocks.

    Read once per process for each file and each pair of sizes, and again if the file changes. Raises
    `UserError` if there is no such data, or it cannot be used as asked.
    """
    files = layouts.files(find(name_or_path))
    # Not resolved: a link's own name tells the format, where the file behind it may be called by its checksum.
    stamped = tuple((file.absolute(), file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    return _load(name_or_path, stamped, examples_used, pool, held_out)


def find(name_or_path: str) -> Path:
    """The file or folder behind a name or a path. Raises `UserError` with the nearest match if there is none."""
    if name_or_path in EMBEDDED:
        return EMBEDDED[name_or_path]
    if name_or_path in places.SETS:
        path = places.found(name_or_path)
        if path is None:
            raise _absent(name_or_path)
        return path
    path = Path(name_or_path).expanduser()
    if path.exists():
        return path
    beside = [str(path.parent / file.name) for file in path.parent.iterdir()] if path.parent.is_dir() else []
    names = [*EMBEDDED, *places.SETS]
    near = difflib.get_close_matches(name_or_path, [*names, *beside], n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UserError(
        f"no data set or file {name_or_path!r}.{hint} "
        f"Allowed: {', '.join(names)}, or the path of a file or folder of images (python -m tasks data list)"
    )


def _absent(name: str) -> UserError:
    looked = "\n".join(f"  {whose}: {folder / pattern}" for whose, folder, pattern in places.candidates(name))
    return UserError(
        f"data set {name!r} is not on this machine. Get it with  python -m tasks data get {name}  "
        f"or give the path of its file or folder. Looked for\n{looked}"
    )


@lru_cache(maxsize=8)
def _load(
    source: str, files: tuple[tuple[Path, int, int], ...], examples_used: int, pool: int, held_out: int
) -> Images:
    parts = [_checked(path, *formats.read_pair(path)) for path, _, _ in files]
    images, labels = _joined([path for path, _, _ in files], parts)
    what = source if source in (*EMBEDDED, *places.SETS) else str(files[0][0].parent if len(files) > 1 else files[0][0])
    if labels.min() < 0 or labels.max() >= len(labels):
        # An upper limit, because the highest label sets the size of the network's output.
        raise UserError(
            f"{what}: labels must be class numbers, from 0 and below the number of examples ({len(labels)}), "
            f"found {labels.min()} to {labels.max()}"
        )
    classes = int(labels.max()) + 1
    if known := places.SETS.get(source):
        classes = known.classes
        if images.shape[1:] != known.shape or labels.max() >= classes:
            raise UserError(
                f"{files[0][0].parent} does not hold {source}: it must have images of shape {known.shape} and "
                f"{known.classes} classes, found {images.shape[1:]} and {labels.max() + 1}"
            )
    asked = examples_used + held_out
    if len(images) < asked:
        more = f" and held_out for {held_out} more" if held_out else ""
        hint = f"; more of them are in {LARGER[source]}" if source in LARGER else ""
        raise UserError(f"{what} has {len(images)} examples, examples_used asks for {examples_used}{more}{hint}")
    chosen = pooled(images[:asked], pool)
    # What stays must not keep the whole file in memory.
    return Images.of(chosen if len(chosen) == len(images) else chosen.copy(), labels[:asked], classes, held_out)


def _joined(paths: list[Path], parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """All parts in a row. `UserError` if their images differ in size."""
    if len(parts) == 1:
        return parts[0]
    for path, (images, _) in zip(paths, parts, strict=True):
        if images.shape[1:] != parts[0][0].shape[1:]:
            raise UserError(
                f"images of one data set must have one size: {paths[0]} has {parts[0][0].shape[1:]}, "
                f"{path} has {images.shape[1:]}"
            )
    memory.require(sum(images.nbytes for images, _ in parts), str(paths[0].parent))
    return np.concatenate([images for images, _ in parts]), np.concatenate(
        [labels.astype(np.int64) for _, labels in parts]
    )


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
    small = np.empty((n, height // pool, width // pool, channels), np.uint8)
    for start in range(0, n, BLOCK):
        part = images[start : start + BLOCK]
        blocks = part.reshape(len(part), height // pool, pool, width // pool, pool, channels)
        small[start : start + BLOCK] = np.rint(blocks.mean((2, 4)))
    return small
