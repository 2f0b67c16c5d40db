"""Data sets by name, and where on this machine each may lie: what other libraries have left there is found unasked.

The order is the order of preference: what numpy reads alone before what needs the `data` extra. An environment
variable that moves a library's folder moves it here too. torchvision has no folder of its own; `data` and `datasets`
under the working folder and under the home folder are what its users mostly choose. Sources: the libraries' own code
and documentation; Debian's package dataset-fashion-mnist.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tasks.data import cache, layouts

DEBIAN = Path("/usr/share/datasets")


class Place(NamedTuple):
    """Whose folder it is (a key of `roots`), and what of it: a pattern of paths, where `*` stands for any one name."""

    whose: str
    pattern: str


class ImageSet(NamedTuple):
    """`examples`: training and test ones, in this order; `shape`: height, width, channels."""

    what: str
    examples: tuple[int, int]
    shape: tuple[int, int, int]
    classes: int
    places: tuple[Place, ...]


def roots() -> dict[str, tuple[Path, ...]]:
    """The folders that are looked into, by whose they are."""
    env, home = os.environ.get, Path.home()
    hugging_face = Path(env("HF_HOME") or Path(env("XDG_CACHE_HOME") or home / ".cache") / "huggingface")
    return {
        "suite": (own(),),
        "Debian": (DEBIAN,),
        "torchvision": (own(), Path("data"), Path("datasets"), home / "data", home / "datasets"),
        "Keras": (Path(env("KERAS_HOME") or home / ".keras") / "datasets",),
        "TFDS": (Path(env("TFDS_DATA_DIR") or home / "tensorflow_datasets"),),
        "Hugging Face hub": (Path(env("HF_HUB_CACHE") or hugging_face / "hub"),),
        "Hugging Face datasets": (Path(env("HF_DATASETS_CACHE") or hugging_face / "datasets"),),
    }


def own() -> Path:
    """Where `data get` puts data sets: `$PLASTICITY_DATA`, or the folder `data` in the user's cache folder."""
    return Path(os.environ.get("PLASTICITY_DATA") or cache.folder() / "data").expanduser()


def _places(
    name: str, *, torchvision: str, tfds: str, keras: tuple[str, ...] = (), binary: str = "", hub: tuple[str, ...] = ()
) -> tuple[Place, ...]:
    """binary: the folder of the binary version in what tensorflow_datasets keeps of its downloads."""
    return (
        Place("suite", name),
        Place("torchvision", torchvision),
        *(Place("Keras", pattern) for pattern in keras),
        *((Place("TFDS", f"downloads/extracted/*/{binary}"),) if binary else ()),
        Place("TFDS", f"{tfds}/*"),
        *(Place("Hugging Face hub", f"datasets--{owner.replace('/', '--')}/snapshots/*") for owner in hub),
        *(Place("Hugging Face datasets", f"{owner.replace('/', '___')}/*/*/*") for owner in hub),
    )


#: Test examples follow the training ones, so `examples_used=60000, held_out=10000` of mnist is the usual split.
SETS = {
    "fashion_mnist_full": ImageSet(
        "Fashion-MNIST: Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747; MIT licence",
        (60_000, 10_000),
        (28, 28, 1),
        10,
        (
            Place("Debian", "fashion-mnist"),
            *_places(
                "fashion_mnist_full",
                torchvision="FashionMNIST/raw",
                keras=("fashion-mnist",),
                tfds="fashion_mnist",
                hub=("zalando-datasets/fashion_mnist", "fashion_mnist"),
            ),
        ),
    ),
    "mnist": ImageSet(
        "MNIST: LeCun, Bottou, Bengio and Haffner 1998; CC BY-SA 3.0",
        (60_000, 10_000),
        (28, 28, 1),
        10,
        _places("mnist", torchvision="MNIST/raw", keras=("mnist.npz",), tfds="mnist", hub=("ylecun/mnist", "mnist")),
    ),
    "kmnist": ImageSet(
        "Kuzushiji-MNIST: Clanuwat et al. 2018, arXiv:1812.01718; CC BY-SA 4.0",
        (60_000, 10_000),
        (28, 28, 1),
        10,
        _places("kmnist", torchvision="KMNIST/raw", tfds="kmnist"),
    ),
    "cifar10": ImageSet(
        "CIFAR-10: Krizhevsky 2009; no licence stated",
        (50_000, 10_000),
        (32, 32, 3),
        10,
        _places(
            "cifar10",
            torchvision="cifar-10-batches-py",
            keras=("cifar-10-batches-py-target/cifar-10-batches-py", "cifar-10-batches-py"),
            binary="cifar-10-batches-bin",
            tfds="cifar10",
            hub=("uoft-cs/cifar10", "cifar10"),
        ),
    ),
    "cifar100": ImageSet(
        "CIFAR-100, the 100 fine classes: Krizhevsky 2009; no licence stated",
        (50_000, 10_000),
        (32, 32, 3),
        100,
        _places(
            "cifar100",
            torchvision="cifar-100-python",
            keras=("cifar-100-python-target/cifar-100-python", "cifar-100-python"),
            binary="cifar-100-binary",
            tfds="cifar100",
            hub=("uoft-cs/cifar100", "cifar100"),
        ),
    ),
}


def found(name: str) -> Path | None:
    """Where a set lies: the first place, in the order of preference, that has its training examples."""
    for _, root, pattern in candidates(name):
        for path in sorted(root.glob(pattern), key=_natural, reverse=True):  # the highest version first
            if path.is_file() or any(layouts.split(folder) for folder in (path, *_folders(path))):
                return path
    return None


def candidates(name: str) -> Iterator[tuple[str, Path, str]]:
    """Every place of a set that is looked at: (whose, folder, pattern)."""
    where = roots()
    for place in SETS[name].places:
        for root in where[place.whose]:
            yield place.whose, root.expanduser().absolute(), place.pattern


def _folders(path: Path) -> list[Path]:
    return [sub for sub in path.iterdir() if sub.is_dir()] if path.is_dir() else []


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    """Sorts 3.0.10 after 3.0.2."""
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", str(path))]
